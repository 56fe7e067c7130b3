"""Puts the storage service together: the only place that wires."""

from __future__ import annotations

from trivet.contracts.storage.alarms import ALARM, RULES
from trivet.contracts.storage.disk import DISK
from trivet.contracts.storage.engine import VolumeEngine
from trivet.contracts.storage.inspector import DiskInspector
from trivet.contracts.storage.pool import POOL
from trivet.contracts.storage.snapshot import SNAPSHOT
from trivet.contracts.storage.volume import VOLUME
from trivet.runtime.alarms import keep_alarms
from trivet.runtime.service import Service
from trivet.runtime.wiring import wire_endpoints
from trivet.storage.controllers.balance import Balancer
from trivet.storage.controllers.healing import Healer
from trivet.storage.controllers.places import PlacesWatch
from trivet.storage.controllers.pools import PoolController
from trivet.storage.controllers.scrubs import Scrubber
from trivet.storage.controllers.snapshots import SnapshotController
from trivet.storage.controllers.spares import Spares
from trivet.storage.controllers.volumes import VolumeController
from trivet.storage.disk_claims import DiskClaims, DiskClaimSweep
from trivet.storage.gauges import gauges
from trivet.storage.ledgers import PREFIX as LEDGERS
from trivet.storage.ledgers import Ledgers
from trivet.storage.node.beats import Beats
from trivet.storage.node.disk_watch import DiskWatch
from trivet.storage.node.disks import DiskAgent
from trivet.storage.node.orphans import OrphanWatch
from trivet.storage.node.pools import PoolAgent
from trivet.storage.node.replicated import Replicated, can_replicate
from trivet.storage.node.serving import Serving
from trivet.storage.node.snapshots import SnapshotAgent
from trivet.storage.node.volume_effects import VolumeEffects
from trivet.storage.node.volumes import VolumeAgent
from trivet.storage.parts import Parts


async def bootstrap(service: Service) -> None:
    """Open the drivers, and register endpoints, controllers and agents."""
    runtime, names = service.runtime, service.runtime.settings.storage
    volumes, pools = service.collection(VOLUME), service.collection(POOL)
    disks, snapshots = service.collection(DISK), service.collection(SNAPSHOT)
    engine: VolumeEngine = await runtime.driver("trivet_volume_engines", names.engine)
    service.on_close(engine.close)
    inspector: DiskInspector = await runtime.driver("trivet_disk_inspectors", names.inspector)
    service.on_close(inspector.close)
    ledgers = Ledgers(runtime.store)
    service.feed.add(LEDGERS, ledgers.take)
    pool_agent = PoolAgent(service, pools, disks, engine)
    serving = Serving(volumes, engine, runtime.node, names.address or runtime.settings.address)
    replicated = None
    if can_replicate(engine):
        replicated = Replicated(
            service,
            volumes,
            engine,
            serving,
            wake=lambda id_: volume_agent.wake(id_),
            held=lambda: volume_agent.held(),
            disks=disks,
        )
        service.on_close(replicated.comparisons.close)
    graphs = replicated.graphs if replicated else None
    effects = VolumeEffects(runtime, volumes, pools, engine, serving, graphs)
    volume_agent = VolumeAgent(service, volumes, engine, effects, pool_agent, graphs)
    if replicated is not None:
        service.agent("replica failures", replicated.hear_failures)
        service.agent("replica hosts", replicated.beats.run)
    service.agent("pools", pool_agent.run)
    service.agent("volumes", volume_agent.run)
    snapshot_agent = SnapshotAgent(service, snapshots, volumes, pools, engine, pool_agent)
    service.agent("snapshots", snapshot_agent.run)
    orphans = OrphanWatch(service, volumes, snapshots, pools, engine, pool_agent)
    service.agent("orphans", orphans.run)
    disk_agent = DiskAgent(service, disks, inspector)
    service.agent("disks", disk_agent.run)
    service.agent("disk watch", DiskWatch(service, disks, inspector, disk_agent).run)
    service.agent("beats", Beats(service).run)
    places = PlacesWatch(service, pools, disks)
    service.agent("beats of all", places.listen)
    service.controller("places", places.run)
    volume_controller = VolumeController(service, volumes, pools, snapshots, ledgers, places)
    service.controller("volumes", volume_controller.run)
    healer = Healer(service, volumes, pools, ledgers, places)
    service.controller("healing", healer.run)
    disk_claims = DiskClaims(runtime.store, pools)
    snapshot_controller = SnapshotController(service, snapshots, volumes, pools, ledgers, places)
    service.controller("snapshots", snapshot_controller.run)
    pool_controller = PoolController(service, pools, volumes, snapshots, ledgers, disk_claims)
    service.controller("pools", pool_controller.run)
    age_s = runtime.settings.storage.claim_age_s
    spares = Spares(service, pools, disks, disk_claims, places)
    service.controller("spares", spares.run)
    service.controller("scrubs", Scrubber(service, volumes, disks).run)
    balancer = Balancer(service, volumes, pools, snapshots, ledgers, places)
    service.controller("balance", balancer.run)
    sweep = DiskClaimSweep(disk_claims, pools, runtime.clock, age_s)
    service.controller("disk claims", sweep.run)
    service.state.add(gauges(pools, volumes))
    await keep_alarms(service, ALARM, RULES)
    parts = Parts(
        runtime,
        volumes,
        pools,
        disks,
        ledgers,
        engine,
        serving,
        disk_claims,
        pool_agent,
        snapshots,
        replicated,
    )
    wire_endpoints(service, parts)
