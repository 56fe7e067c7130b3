"""The duty of the leader towards volumes: places for their replicas, and their end.

Space is promised in the ledgers before a place is recorded, so that a volume that has a place
has its space. What a killed controller had promised is found again at the next look: a member
that holds a promise for the volume is taken first.
"""

from __future__ import annotations

import logging

from trivet.contracts.resource import Phase
from trivet.contracts.storage.codes import NO_SPACE
from trivet.contracts.storage.pool import Pool
from trivet.contracts.storage.snapshot import Snapshot
from trivet.contracts.storage.volume import VOLUME, ReplicaState, Volume
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service
from trivet.storage.controllers.places import PlacesWatch
from trivet.storage.domain import volume_plan as do
from trivet.storage.domain.placement import (
    Unplaceable,
    Wanted,
    claim_at,
    first_replicas,
    place,
)
from trivet.storage.domain.space import SpaceClaim
from trivet.storage.domain.volume_status import growth, in_sync, placed, settled, unplaced
from trivet.storage.ledgers import Ledgers

log = logging.getLogger(__name__)

WORKERS = 16
AGAIN_S = 2.0


class VolumeController:
    """Places volumes, points nodes at them, and ends them."""

    def __init__(
        self,
        service: Service,
        volumes: Collection[Volume],
        pools: Collection[Pool],
        snapshots: Collection[Snapshot],
        ledgers: Ledgers,
        watch: PlacesWatch,
    ) -> None:
        self._runtime = service.runtime
        self._assignments = service.assignments
        self._volumes = volumes
        self._pools = pools
        self._snapshots = snapshots
        self._ledgers = ledgers
        self._watch = watch
        self._reconciler = Reconciler(
            "volume controller",
            self._reconcile,
            clock=self._runtime.clock,
            keys=volumes.keys,
            bound=WORKERS,
            calm=self._calm,
        )
        volumes.on_change(self._reconciler.wake)
        self._assignments.on_dropped(self._pointer_gone)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._reconciler.run()

    def _pointer_gone(self, kind: str, key: str) -> None:
        if kind == VOLUME.name:
            self._reconciler.wake(key)

    def _calm(self, key: str) -> bool:
        """Whether all is done for a volume: it has its places, and they are pointed at it."""
        volume = self._volumes.by_key(key)
        if volume is None:
            return True
        meta = volume.meta
        return meta.deleting_at is None and all(
            isinstance(action, do.AssignTo)
            and all(
                self._assignments.points(node, VOLUME.name, meta.id, key, meta.generation)
                for node in action.nodes
            )
            for action in do.plan_in_cluster(volume, self._runtime.clock.now())
        )

    async def _reconcile(self, key: str) -> float | None:
        # The copy will do to see that all is pointed at. What has no place yet, or goes, is
        # looked at in the store: space must not be promised for it in a second place.
        volume = self._volumes.by_key(key)
        if volume is None or volume.meta.deleting_at is not None or not volume.status.replicas:
            volume = await self._volumes.fresh(key)
        if volume is None:
            return None
        again: float | None = None
        copied = volume.meta.deleting_at is not None and do.copied_from(
            volume, self._volumes.list(volume.meta.project)
        )
        for action in do.plan_in_cluster(volume, self._runtime.clock.now(), copied):
            match action:
                case do.Place():
                    again = await self._place(volume)
                case do.ClaimGrowth():
                    again = await self._claim_growth(volume)
                case do.AssignTo(nodes):
                    await self._assign(volume, nodes)
                case do.Settle():
                    await self._settle(volume)
                case do.LeaveBehind(nodes):
                    # Their pointers stay: a node that comes back finds there what is to go.
                    log.warning("%s goes without %s, which did not answer", volume, nodes)
                case do.Forget():
                    await self._forget(volume)
                case do.LookAgain(after_s):
                    again = after_s
        return again

    async def _place(self, volume: Volume) -> float | None:
        pool = self._pools.get(volume.spec.pool or "")
        if pool is None or not pool.status.usage:
            why = f"pool {volume.spec.pool} is not ready on any node yet"
            return await self._unplaced(volume, "PoolNotReady", why)
        source_nodes = self._source_nodes(volume)
        if volume.spec.source is not None and source_nodes is None:
            begins = volume.spec.source.snapshot or volume.spec.source.volume
            why = f"{begins}, which it begins as, is gone"
            await self._unplaced(volume, "SourceGone", why)
            key = self._volumes.key_of(volume)
            await self._volumes.mutate(key, _failed)
            return None
        claim = SpaceClaim(
            key=self._volumes.key_of(volume),
            size_bytes=volume.spec.size_bytes,
            thin=volume.spec.thin,
        )
        wanted = Wanted(
            volume=volume.meta.id,
            replicas=first_replicas(volume, source_nodes),
            claim=claim,
            nodes=volume.spec.nodes,
            source_nodes=source_nodes,
        )
        found = place(wanted, self._ledgers.members(pool), self._watch.places)
        if isinstance(found, Unplaceable):
            return await self._unplaced(volume, _word(found.code.value), found.reason)
        for spot in found.spots:
            at = claim_at(claim, spot)
            why_not = await self._ledgers.claim(pool, spot.node, volume.meta.id, at)
            if why_not is not None:
                return await self._unplaced(volume, _word(NO_SPACE.value), why_not)
        now = self._runtime.clock.now()
        where = {spot.node: spot.disk or pool.meta.name for spot in found.spots}

        def record(current: Volume) -> Volume:
            fresh = current.meta.id == volume.meta.id and not current.status.replicas
            if not fresh or current.meta.deleting_at is not None:
                return current
            return placed(current, where, claim.size_bytes, found.reason, now)

        await self._volumes.mutate(self._volumes.key_of(volume), record)
        return None

    async def _claim_growth(self, volume: Volume) -> float | None:
        """Promise what the volume has grown to, wherever it lies; then its nodes may grow it."""
        pool, size, why = self._pools.get(volume.status.pool or ""), volume.spec.size_bytes, None
        if pool is None:
            return AGAIN_S
        claim = SpaceClaim(key=self._volumes.key_of(volume), size_bytes=size, thin=volume.spec.thin)
        for replica in volume.status.replicas:
            if replica.state in (ReplicaState.LEAVING, ReplicaState.LOST):
                continue
            disk = replica.disk if replica.disk != pool.meta.name else ""
            at = claim.model_copy(update={"disk": disk})
            why = why or await self._ledgers.claim(pool, replica.node, volume.meta.id, at)
        now, key = self._runtime.clock.now(), self._volumes.key_of(volume)

        def record(current: Volume) -> Volume:
            same = current.meta.id == volume.meta.id
            return growth(current, size, why or "", now) if same else current

        await self._volumes.mutate(key, record)
        return AGAIN_S if why else None

    def _source_nodes(self, volume: Volume) -> frozenset[str] | None:
        """Where the content lies that the volume begins with; None: nowhere."""
        status = volume.status
        if status.source_snapshot is not None:
            snapshot = self._snapshots.by_id(status.source_snapshot)
            part = snapshot.status.part(status.source or "") if snapshot else None
            return frozenset(part.complete_on) if part else None
        source = self._volumes.by_id(status.source) if status.source else None
        return frozenset(r.node for r in in_sync(source)) if source else None

    async def _unplaced(self, volume: Volume, reason: str, message: str) -> float:
        now = self._runtime.clock.now()
        key = self._volumes.key_of(volume)
        await self._volumes.mutate(key, lambda v: unplaced(v, reason, message, now))
        return AGAIN_S

    async def _assign(self, volume: Volume, nodes: tuple[str, ...]) -> None:
        key, meta = self._volumes.key_of(volume), volume.meta
        for node in nodes:
            await self._assignments.assign(node, VOLUME.name, meta.id, key, meta.generation)

    async def _settle(self, volume: Volume) -> None:
        def record(current: Volume) -> Volume:
            return settled(current) if current.meta.id == volume.meta.id else current

        await self._volumes.mutate(self._volumes.key_of(volume), record)

    async def _forget(self, volume: Volume) -> None:
        pool = self._pools.get(volume.spec.pool or "")
        for member in pool.spec.members if pool else ():
            assert pool is not None
            await self._ledgers.release(pool.meta.id, member.node, volume.meta.id)
        await self._volumes.remove(volume)


def _failed(volume: Volume) -> Volume:
    return volume.with_status(phase=Phase.FAILED, observed_generation=volume.meta.generation)


def _word(code: str) -> str:
    """An error code as a condition's reason: `volume.no_space` is `NoSpace`."""
    return "".join(part.capitalize() for part in code.partition(".")[2].split("_"))
