"""Three nodes: replicas are placed apart, replaced when hosts and disks fail, moved, and removed.

The copying itself is the holder's node's, and other tests' matter: here a replica that is to be
brought in sync is recorded so by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.functional.storage.conftest import NAMES, PROJECT, Storage, code_of, until

from trivet.contracts.compute.endpoints.nodes import CRUD as NODES
from trivet.contracts.compute.node import Node, NodeSpec, NodeStatus
from trivet.contracts.endpoint import (
    CreateRequest,
    EditRequest,
    GetRequest,
    ListRequest,
    NewMeta,
    Page,
    Ref,
)
from trivet.contracts.errors import (
    CONFLICT,
    IMMUTABLE,
    IN_USE,
    MALFORMED,
    REFERENCE,
    TrivetError,
)
from trivet.contracts.model import GIB, NodeName, ResourceId
from trivet.contracts.resource import Meta, Phase
from trivet.contracts.storage.codes import (
    AT_STAKE,
    ATTACHED,
    NO_SPACE,
    SHRINK,
    TOO_FEW_NODES,
)
from trivet.contracts.storage.disk import DISK, Disk, DiskFacts, DiskHealth
from trivet.contracts.storage.endpoints.disk_isolate import ENDPOINT as ISOLATE
from trivet.contracts.storage.endpoints.disk_readmit import ENDPOINT as READMIT
from trivet.contracts.storage.endpoints.disks import CRUD as DISKS
from trivet.contracts.storage.endpoints.node_maintenance import ENDPOINT as MAINTENANCE
from trivet.contracts.storage.endpoints.node_maintenance import MaintenanceRequest, Mode
from trivet.contracts.storage.endpoints.node_outlook import ENDPOINT as OUTLOOK
from trivet.contracts.storage.endpoints.pools import CRUD as POOLS
from trivet.contracts.storage.endpoints.snapshots import CRUD as SNAPSHOTS
from trivet.contracts.storage.endpoints.volume_move_replica import ENDPOINT as MOVE
from trivet.contracts.storage.endpoints.volume_move_replica import MoveReplicaRequest
from trivet.contracts.storage.endpoints.volume_revert import ENDPOINT as REVERT
from trivet.contracts.storage.endpoints.volume_revert import RevertRequest
from trivet.contracts.storage.outlook import Effect
from trivet.contracts.storage.pool import PoolMember
from trivet.contracts.storage.snapshot import Snapshot, SnapshotSpec
from trivet.contracts.storage.volume import VOLUME, Missing, ReplicaState, Volume
from trivet.runtime.call import Call
from trivet.storage.bootstrap import bootstrap
from trivet.storage.domain.volume_status import stated, with_replica
from trivet.testing.fakes import plugin as fakes
from trivet.testing.fakes.disk_inspector import FakeDiskInspector
from trivet.testing.fakes.volume_machine import BLOCK, MACHINES, FakeMachine
from trivet.testing.harness import Harness

ALL = ("n1", "n2", "n3")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = ReplicaState.IN_SYNC


class Cluster(Storage):
    """Storage services on three nodes, and a compute service that knows of them."""

    def __init__(self, harness: Harness) -> None:
        super().__init__(harness)
        self.specs = {name: NodeSpec() for name in ALL}

    def machine_of(self, node: str) -> FakeMachine:
        folder = self.harness.folder / "state" / "storage" / "fake-engine"
        return MACHINES[folder, node]

    async def up(self) -> None:
        await self.harness.fake(NODES.list, self._list)
        await self.harness.fake(NODES.edit, self._edit)
        for node in ALL:
            await self.harness.start("storage", bootstrap, node=node)

    async def _list(self, request: ListRequest, call: Call) -> Page[Node]:
        return Page[Node](items=tuple(self._node(name) for name in self.specs))

    def _node(self, name: str) -> Node:
        meta = Meta(id=ResourceId(f"node-{name}"), name=name, created_at=NOW)
        return Node(meta=meta, spec=self.specs[name], status=NodeStatus())

    async def _edit(self, request: EditRequest, call: Call) -> Node:
        self.specs[request.name] = self.specs[request.name].model_copy(update=request.spec)
        return self._node(request.name)

    async def bring_in_sync(self, name: str) -> None:
        """What the holder's node would do."""
        volumes = self.harness.service("storage", "n1").collection(VOLUME)

        def synced(volume: Volume) -> Volume:
            for replica in volume.status.replicas:
                behind = replica.state is ReplicaState.STALE and replica.missing is Missing.ALL
                if behind and replica.size_bytes:
                    volume = with_replica(volume, replica.node, lambda r: stated(r, GOOD, "", NOW))
            return volume

        await volumes.mutate(VOLUME.key(PROJECT, name), synced)

    async def good(self, name: str) -> set[str]:
        volume = await self.show(name, 0)
        return {r.node for r in volume.status.replicas if r.state is GOOD}

    async def lies_on(self, name: str, *nodes: str, away: str = "") -> None:
        """Wait until these have a good replica, and no other has any; but the node that is
        `away`, which has not heard yet that its own is to go."""

        async def so() -> bool:
            await self.bring_in_sync(name)
            volume = await self.show(name, 0)
            replicas = volume.status.replicas
            silent = [r for r in replicas if r.state is ReplicaState.LEAVING and r.node == away]
            there = {(r.node, r.state) for r in replicas if r not in silent}
            return there == {(n, GOOD) for n in nodes}

        await until(f"{name} lies on {nodes}", so, 20)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    configs: dict[str, Any] = {"fake-engine": {"pool_bytes": 10 * GIB}}
    settings = {**NAMES, "node_silent_s": 2.0, "rebuild_after_s": 2.5}
    async with Harness(tmp_path, plugins=(fakes,), storage=settings, configs=configs) as harness:
        made = Cluster(harness)
        await made.up()
        members = tuple(PoolMember(node=n, file_gib=10) for n in ALL)
        assert (await made.pool("p", members=members, overcommit=1.0)).status.phase is Phase.READY
        yield made


async def test_replicas_come_and_go_on_line(cluster: Cluster) -> None:
    made = await cluster.make("v", replicas=2, nodes=("n1",))
    assert len({r.node for r in made.status.replicas}) == 2
    await cluster.edit("v", replicas=3)
    await until("it is made", lambda: _is_there(cluster, "v", 3))
    third = await cluster.show("v", 0)
    new = [r for r in third.status.replicas if r.missing is Missing.ALL]
    assert [r.state for r in new] == [ReplicaState.STALE]
    assert third.status.phase is Phase.PENDING
    await cluster.lies_on("v", *ALL)
    assert (await cluster.show("v")).status.phase is Phase.READY
    await cluster.edit("v", replicas=1)
    await cluster.lies_on("v", "n1")  # where it is wanted first
    assert [n for n in ALL if cluster.machine_of(n).replicas] == ["n1"]


async def _is_there(cluster: Cluster, name: str, count: int) -> bool:
    replicas = (await cluster.show(name, 0)).status.replicas
    return len(replicas) == count and all(r.size_bytes for r in replicas)


async def test_a_silent_node_is_replaced_and_what_it_kept_goes_when_it_is_back(
    cluster: Cluster,
) -> None:
    await cluster.make("v", replicas=2, nodes=("n1", "n2"))
    await cluster.harness.crash("storage", "n2")
    await cluster.lies_on("v", "n1", "n3", away="n2")
    assert cluster.machine_of("n2").replicas, "it is not reached"
    await cluster.harness.start("storage", bootstrap, node="n2")
    await until("n2 removes its replica", lambda: not cluster.machine_of("n2").replicas)
    assert await cluster.good("v") == {"n1", "n3"}


async def test_without_another_place_it_waits_and_says_so(cluster: Cluster) -> None:
    await cluster.make("v", replicas=3)
    await cluster.harness.crash("storage", "n3")

    async def told() -> bool:
        condition = (await cluster.show("v", 0)).status.condition("Redundant")
        return condition is not None and condition.status == "false"

    await until("it is told", told)
    assert await cluster.good("v") >= {"n1", "n2"}


async def test_a_replica_is_moved(cluster: Cluster) -> None:
    await cluster.make("v", replicas=2, nodes=("n1", "n2"))
    request = MoveReplicaRequest(
        project=PROJECT, name="v", source=NodeName("n2"), target=NodeName("n3")
    )
    await cluster.harness.call(MOVE, request)
    await cluster.harness.call(MOVE, request)  # again: nothing more
    await cluster.lies_on("v", "n1", "n3")
    await until("n2 is empty", lambda: not cluster.machine_of("n2").replicas)
    assert await code_of(cluster.harness.call(MOVE, request)) is REFERENCE
    taken = request.model_copy(update={"source": "n1", "target": "n3"})
    assert await code_of(cluster.harness.call(MOVE, taken)) is CONFLICT


async def test_a_node_is_emptied_for_maintenance(cluster: Cluster) -> None:
    await cluster.make("v", replicas=1, nodes=("n2",))
    outlook = await cluster.harness.call(OUTLOOK, Ref(name="n2"))
    assert [(v.volume, v.effect) for v in outlook.volumes] == [("v", Effect.UNAVAILABLE)]
    on = MaintenanceRequest(name="n2", mode=Mode.ON)
    assert await code_of(cluster.harness.call(MAINTENANCE, on)) is AT_STAKE
    assert not cluster.specs["n2"].maintenance
    await cluster.harness.call(MAINTENANCE, on.model_copy(update={"move": True}))

    async def away() -> bool:
        await cluster.bring_in_sync("v")
        good = await cluster.good("v")
        return bool(good) and "n2" not in good

    await until("it is moved away", away, 20)
    await until("n2 is empty", lambda: not cluster.machine_of("n2").replicas, 20)
    assert (await cluster.harness.call(OUTLOOK, Ref(name="n2"))).volumes == ()
    await cluster.harness.call(MAINTENANCE, MaintenanceRequest(name="n2", mode=Mode.OFF))


async def test_what_cannot_be_is_refused_and_harms_nothing(cluster: Cluster) -> None:
    await cluster.make("v", replicas=2)
    await cluster.make("w", size_gib=2)
    assert await code_of(cluster.edit("w", size_gib=1)) is SHRINK
    assert await code_of(cluster.edit("v", replicas=4)) is MALFORMED
    assert await code_of(cluster.edit("v", replicas=0)) is MALFORMED
    assert await code_of(cluster.edit("v", pool="q")) is IMMUTABLE
    await cluster.attach("w", "vm/1")
    assert await code_of(cluster.attach("w", "vm/2")) is ATTACHED
    assert await code_of(cluster.delete("w")) is IN_USE
    assert await code_of(cluster.ask("big", size_gib=11)) is NO_SPACE
    assert await code_of(cluster.edit("v", size_gib=12)) is NO_SPACE
    members = (PoolMember(node="n1", file_gib=10),)
    await cluster.pool("one", members=members)
    assert await code_of(cluster.ask("y", replicas=2, pool="one")) is TOO_FEW_NODES
    await cluster.make("z", replicas=1, pool="one")
    assert await code_of(cluster.edit("z", replicas=2)) is TOO_FEW_NODES
    assert (await cluster.show("v")).status.phase is Phase.READY
    assert len(await cluster.good("v")) == 2


async def test_space_is_given_back_when_a_replica_went(cluster: Cluster) -> None:
    await cluster.make("v", size_gib=6, replicas=3)
    await cluster.edit("v", replicas=1)
    await until("one is left", lambda: _has_good(cluster, "v", 1))
    kept = next(iter(await cluster.good("v")))
    for number in range(2):
        await cluster.make(f"w{number}", size_gib=6)
    full = {n for n in ALL if n != kept}
    assert {next(iter(await cluster.good(f"w{n}"))) for n in range(2)} == full


async def _has_good(cluster: Cluster, name: str, count: int) -> bool:
    replicas = (await cluster.show(name, 0)).status.replicas
    return len(replicas) == count


@pytest.fixture
async def disks(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Two data disks a node."""
    facts = [DiskFacts(device=f"/dev/{x}", serial=x, size_bytes=GIB, holds="") for x in "ab"]
    configs = {
        "fake-inspector": {"disks": [f.model_dump() for f in facts]},
        "fake-engine": {"pool_bytes": 10 * GIB},
    }
    settings = {**NAMES, "node_silent_s": 2.0, "rebuild_after_s": 2.5}
    async with Harness(tmp_path, plugins=(fakes,), storage=settings, configs=configs) as harness:
        made = Cluster(harness)
        await made.up()
        for node in ALL:
            for x in "ab":
                await until("a disk", lambda n=f"{node}-{x}": _has_role(harness, n))
        members = tuple(PoolMember(node=n, disks=(f"{n}-a", f"{n}-b")) for n in ALL)
        await made.pool("p", members=members)
        yield made


async def _has_role(harness: Harness, name: str) -> bool:
    try:
        await harness.call(DISKS.edit, EditRequest(name=name, spec={"role": "data"}))
    except TrivetError:
        return False
    return True


async def test_disks_fill_alike_and_an_isolated_one_is_emptied(disks: Cluster) -> None:
    for number in range(4):
        await disks.make(f"v{number}", replicas=3)
    lies = [r.disk for n in range(4) for r in (await disks.show(f"v{n}")).status.replicas]
    assert sorted(set(lies)) == sorted(f"{n}-{x}" for n in ALL for x in "ab")
    assert all(lies.count(d) == 2 for d in set(lies))
    assert await code_of(disks.harness.call(ISOLATE, Ref(name="n1-x"))) is not None
    await disks.harness.call(ISOLATE, Ref(name="n1-a"))
    # Three replicas on three nodes: there is no other host, so it stays, and that is said.
    await until("it is told", lambda: _told(disks, "n1-a"))
    assert [len(await disks.good(f"v{n}")) for n in range(4)] == [3, 3, 3, 3]
    await disks.harness.call(READMIT, Ref(name="n1-a"))
    await disks.make("w", replicas=1, nodes=("n2",))
    where = (await disks.show("w")).status.replicas[0].disk
    await disks.harness.call(ISOLATE, Ref(name=where))

    async def away() -> bool:
        await disks.bring_in_sync("w")
        there = (await disks.show("w", 0)).status.replicas
        return [r.disk == where for r in there] == [False]

    await until("it is moved away", away, 20)


async def _told(disks: Cluster, name: str) -> bool:
    for number in range(4):
        condition = (await disks.show(f"v{number}", 0)).status.condition("Redundant")
        if condition is not None and name in condition.message:
            return True
    return False


async def test_a_failed_disk_is_replaced_at_once_and_never_the_last_good_copy(
    disks: Cluster,
) -> None:
    await disks.make("v", replicas=2, nodes=("n1", "n2"))
    await disks.make("w", replicas=1, nodes=("n1",))
    fails = {r.disk for r in (await disks.show("v")).status.replicas if r.node == "n1"}
    fails |= {r.disk for r in (await disks.show("w")).status.replicas}
    collection = disks.harness.service("storage", "n1").collection(DISK)
    changes = {"health": DiskHealth.FAILED, "why": "input/output errors"}
    for name in fails:
        await collection.mutate(DISK.key(None, name), lambda d: d.with_status(**changes))
    await disks.lies_on("v", "n2", "n3")
    assert await disks.good("w") == {"n1"}, "the last good copy is never given up"
    outlook = (await disks.show("w")).status.outlook
    assert {o.effect for o in outlook if o.disk} == {Effect.LOST}


async def test_only_what_can_be_is_isolated(disks: Cluster) -> None:
    await disks.harness.call(ISOLATE, Ref(name="n1-a"))
    await asyncio.gather(*(disks.harness.call(ISOLATE, Ref(name="n1-a")) for _ in range(3)))
    await disks.harness.call(READMIT, Ref(name="n1-a"))
    storage = disks.harness.service("storage", "n1").collection(DISK)
    found = await storage.fresh(DISK.key(None, "n1-a"))
    assert found is not None
    assert not found.spec.isolated
    await disks.harness.call(DISKS.edit, EditRequest(name="n1-a", spec={"role": "data"}))


async def test_a_disk_that_gets_slow_is_isolated_and_a_spare_takes_its_place(
    tmp_path: Path,
) -> None:
    facts = [DiskFacts(device=f"/dev/{x}", serial=x, size_bytes=GIB, holds="") for x in "abs"]
    slow = {"latency_ms": 500.0}
    configs = {
        "fake-inspector": {
            "disks": [f.model_dump() for f in facts],
            "readings": {"/dev/a": [slow]},
        },
    }
    settings = {**NAMES, "disk_window_s": 2.0}
    async with Harness(tmp_path, plugins=(fakes,), storage=settings, configs=configs) as harness:
        made = Storage(harness)
        await made.start()
        for x in "ab":
            await until("a disk", lambda n=f"n1-{x}": _has_role(harness, n))
        spare = EditRequest(name="n1-s", spec={"role": "spare"})
        await harness.call(DISKS.edit, spare)
        await made.pool("p", members=(PoolMember(node="n1", disks=("n1-a", "n1-b")),))

        async def replaced() -> bool:
            pool = await made.show_pool("p")
            assert set(pool.spec.members[0].disks) <= {"n1-a", "n1-b", "n1-s"}
            return any(u.disk("n1-s") for u in pool.status.usage)

        await until("the spare is in the pool", replaced, 30)
        bad = await harness.call(DISKS.get, GetRequest(name="n1-a"))
        assert bad.status.health is DiskHealth.ISOLATED
        assert "500" not in bad.status.why
        assert "125 ms" in bad.status.why
        lies = {(await made.make(f"v{n}")).status.replicas[0].disk for n in range(4)}
        assert lies == {"n1-b", "n1-s"}


async def test_a_pulled_disk_leaves_the_others_of_its_pool_open(disks: Cluster) -> None:
    await disks.make("v", replicas=2, nodes=("n1", "n2"))
    disk = next(r.disk for r in (await disks.show("v")).status.replicas if r.node == "n1")
    letter = disk.removeprefix("n1-")
    inspector = FakeDiskInspector.opened["n1"]
    pulled = next(f for f in inspector.found if f.serial == letter)
    inspector.found = tuple(f for f in inspector.found if f is not pulled)

    async def health() -> DiskHealth:
        found: Disk = await disks.harness.call(DISKS.get, GetRequest(name=disk))
        return found.status.health

    async def is_missing() -> bool:
        return await health() is DiskHealth.MISSING

    await until("it is missing", is_missing)
    # On the other disk of the node all goes on; what was on this one is made elsewhere in time.
    lies = (await disks.make("w", nodes=("n1",))).status.replicas[0]
    assert (lies.node, lies.disk != disk) == ("n1", True)
    await disks.lies_on("v", "n2", "n3", away="n1")
    inspector.found = (*inspector.found, pulled)

    async def is_back() -> bool:
        return await health() is DiskHealth.OK

    await until("it is back", is_back)
    await disks.lies_on("v", "n2", "n3")


async def test_what_is_empty_is_taken_away_from_a_pool_and_free_again(disks: Cluster) -> None:
    made = await disks.make("v", replicas=1, nodes=("n1",))
    used = made.status.replicas[0].disk
    other = "n1-b" if used == "n1-a" else "n1-a"
    members = (await disks.show_pool("p")).spec.members

    async def edit(*changed: PoolMember) -> None:
        spec = {"members": [m.model_dump() for m in changed]}
        await disks.harness.call(POOLS.edit, EditRequest(name="p", spec=spec))

    without = members[0].model_copy(update={"disks": (other,)})
    assert await code_of(edit(without, *members[1:])) is IMMUTABLE
    assert await code_of(edit(*members[1:])) is IMMUTABLE
    await edit(members[0].model_copy(update={"disks": (used,)}), *members[1:])
    await until("the disk is free", lambda: _is_free(disks, other))
    await edit(members[0].model_copy(update={"disks": (used,)}), members[1])

    async def closed() -> bool:
        return {u.node for u in (await disks.show_pool("p")).status.usage} == {"n1", "n2"}

    await until("n3 has closed it", closed)


async def _is_free(disks: Cluster, name: str) -> bool:
    try:
        await disks.harness.call(DISKS.edit, EditRequest(name=name, spec={"role": "none"}))
    except TrivetError:
        return False
    return True


async def test_a_volume_with_replicas_goes_back_and_the_others_follow(cluster: Cluster) -> None:
    made = await cluster.make("v", replicas=2, nodes=("n1", "n2"))
    meta = NewMeta(name="s", project=PROJECT)
    request = CreateRequest[SnapshotSpec](meta=meta, spec=SnapshotSpec(volumes=("v",)))
    await cluster.harness.call(SNAPSHOTS.create, request)
    ask = GetRequest(project=PROJECT, name="s", settle_s=10)
    snapshot: Snapshot = await cluster.harness.call(SNAPSHOTS.get, ask)
    (part,) = snapshot.status.parts
    for node in ("n1", "n2"):
        cluster.machine_of(node).replicas[made.meta.id].blocks[7] = bytes(4095) + b"x"
    await cluster.harness.call(REVERT, RevertRequest(project=PROJECT, name="v"))

    async def back() -> bool:
        return (await cluster.show("v", 0)).status.reverting is None

    await until("it has gone back", back)
    assert cluster.machine_of(part.node).replicas[made.meta.id].blocks == {}
    others = [r for r in (await cluster.show("v", 0)).status.replicas if r.node != part.node]
    assert [r.missing for r in others] == [Missing.DIFFERENCES]
    assert all(r.state in (ReplicaState.STALE, ReplicaState.REBUILDING) for r in others)


async def test_all_by_itself_replicas_are_made_moved_and_repaired(cluster: Cluster) -> None:
    """With the holder's node doing the copying, and nobody's hand."""
    made = await cluster.make("v", replicas=1, nodes=("n1",))
    content = {n: bytes([n]) * BLOCK for n in range(1, 20)}
    cluster.machine_of("n1").replicas[made.meta.id].blocks.update(content)

    async def lies_on(*nodes: str) -> bool:
        volume = await cluster.show("v", 0)
        there = {(r.node, r.state) for r in volume.status.replicas}
        return there == {(n, GOOD) for n in nodes} and volume.status.attachment is None

    await cluster.edit("v", replicas=2)
    await until("there are two", lambda: _is_there(cluster, "v", 2), 30)
    both = {r.node for r in (await cluster.show("v", 0)).status.replicas}
    await until("both are in sync", lambda: lies_on(*both), 60)
    for node in both:
        assert cluster.machine_of(node).replicas[made.meta.id].blocks == content
    (other,) = both - {"n1"}
    (third,) = set(ALL) - both
    request = MoveReplicaRequest(
        project=PROJECT, name="v", source=NodeName(other), target=NodeName(third)
    )
    await cluster.harness.call(MOVE, request)
    await until("it has moved", lambda: lies_on("n1", third), 60)
    assert cluster.machine_of(third).replicas[made.meta.id].blocks == content
    assert made.meta.id not in cluster.machine_of(other).replicas
