"""Snapshots of volumes with replicas: the same bytes on all their nodes, wherever those go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.functional.storage.conftest import NAMES, PROJECT, until
from tests.functional.storage.test_storage_healing_service import ALL, Cluster
from tests.functional.storage.test_storage_snapshots import drop, gone, show, take

from trivet.contracts.model import GIB, NodeName
from trivet.contracts.storage.endpoints.volume_move_replica import ENDPOINT as MOVE
from trivet.contracts.storage.endpoints.volume_move_replica import MoveReplicaRequest
from trivet.contracts.storage.endpoints.volume_revert import ENDPOINT as REVERT
from trivet.contracts.storage.endpoints.volume_revert import RevertRequest
from trivet.contracts.storage.pool import PoolMember
from trivet.contracts.storage.snapshot import Snapshot
from trivet.contracts.storage.volume import ReplicaState, Volume, VolumeSource
from trivet.storage.bootstrap import bootstrap
from trivet.testing.fakes import plugin as fakes
from trivet.testing.fakes.volume_machine import BLOCK
from trivet.testing.harness import Harness

ONES, TWOS = b"\x01" * BLOCK, b"\x02" * BLOCK


class Kept(Cluster):
    """With what is kept where."""

    def write(self, volume: Volume, block: int, data: bytes) -> None:
        """As a guest would: into all replicas."""
        for replica in volume.status.replicas:
            self.machine_of(replica.node).replicas[volume.meta.id].blocks[block] = data

    def part(self, node: str, snapshot: Snapshot, volume: Volume) -> dict[int, bytes] | None:
        """What a node has of a volume in a snapshot, once that is complete."""
        kept = self.machine_of(node).snapshots.get(snapshot.meta.id, {}).get(volume.meta.id)
        return kept.blocks if kept is not None and kept.complete else None

    async def kept_on(self, name: str, *nodes: str) -> Snapshot:
        """Wait until these have all of a snapshot by the record, and no other anything."""

        async def so() -> bool:
            parts = (await show(self, name)).status.parts
            return all(set(p.nodes) == set(p.complete_on) == set(nodes) for p in parts) and bool(
                parts
            )

        await until(f"{name} is on {nodes}", so, 20)
        return await show(self, name)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Kept]:
    configs: dict[str, Any] = {"fake-engine": {"pool_bytes": 10 * GIB}}
    settings = {**NAMES, "node_silent_s": 1.5, "rebuild_after_s": 60.0}
    async with Harness(tmp_path, plugins=(fakes,), storage=settings, configs=configs) as harness:
        made = Kept(harness)
        await made.up()
        members = tuple(PoolMember(node=n, file_gib=10) for n in ALL)
        await made.pool("p", members=members, overcommit=1.0)
        yield made


async def test_it_is_the_same_on_all_replicas_and_clones_begin_with_as_many(cluster: Kept) -> None:
    one = await cluster.make("one", replicas=2, nodes=("n1", "n2"))
    two = await cluster.make("two", replicas=2, nodes=("n1", "n3"))
    for volume in (one, two):
        cluster.write(volume, 5, ONES)
    # A write that the other replica has, and the cut one had not: nobody was told of it.
    cluster.machine_of("n2").replicas[one.meta.id].blocks[6] = TWOS
    await take(cluster, "s", "one", "two")

    async def everywhere() -> bool:
        parts = (await show(cluster, "s")).status.parts
        return {p.name: set(p.complete_on) for p in parts} == {
            "one": {"n1", "n2"},
            "two": {"n1", "n3"},
        }

    await until("it is on all", everywhere, 20)
    snapshot = await show(cluster, "s")
    assert cluster.part("n1", snapshot, one) == cluster.part("n2", snapshot, one) == {5: ONES}
    assert cluster.part("n1", snapshot, two) == cluster.part("n3", snapshot, two) == {5: ONES}
    source = VolumeSource(snapshot="s", volume="one")
    clone = await cluster.make("clone", replicas=2, source=source)
    states = {r.node: r.state for r in clone.status.replicas}
    assert states == dict.fromkeys(("n1", "n2"), ReplicaState.IN_SYNC)
    for node in states:
        assert cluster.machine_of(node).replicas[clone.meta.id].blocks == {5: ONES}
    await drop(cluster, "s")
    await until("it is gone", lambda: gone(cluster, "s"))
    assert [cluster.machine_of(n).snapshots for n in ALL] == [{}, {}, {}]


async def test_a_node_that_was_away_gets_it_when_it_is_back(cluster: Kept) -> None:
    volume = await cluster.make("v", replicas=2, nodes=("n1", "n2"))
    cluster.write(volume, 1, ONES)
    await cluster.harness.crash("storage", "n2")
    snapshot = await take(cluster, "s", "v")
    assert [p.complete_on for p in snapshot.status.parts] == [("n1",)]
    cluster.write(volume, 1, TWOS)
    await cluster.harness.start("storage", bootstrap, node="n2")
    await cluster.kept_on("s", "n1", "n2")
    assert cluster.part("n2", snapshot, volume) == {1: ONES}


async def test_it_is_cut_where_somebody_answers(cluster: Kept) -> None:
    """The node that would cut it first is away."""
    volume = await cluster.make("v", replicas=2, nodes=("n1", "n2"))
    cluster.write(volume, 1, ONES)
    await cluster.harness.crash("storage", "n1")
    await take(cluster, "s", "v")

    async def cut() -> bool:
        return (await show(cluster, "s")).status.taken_at is not None

    await until("it is cut", cut, 20)
    await cluster.harness.start("storage", bootstrap, node="n1")
    snapshot = await cluster.kept_on("s", "n1", "n2")
    assert cluster.part("n1", snapshot, volume) == {1: ONES}


async def test_it_goes_where_the_replicas_go(cluster: Kept) -> None:
    volume = await cluster.make("v", replicas=1, nodes=("n1",))
    cluster.write(volume, 1, ONES)
    await take(cluster, "s", "v")
    request = MoveReplicaRequest(
        project=PROJECT, name="v", source=NodeName("n1"), target=NodeName("n3")
    )
    await cluster.harness.call(MOVE, request)
    await cluster.lies_on("v", "n3")
    snapshot = await cluster.kept_on("s", "n3")
    assert cluster.part("n3", snapshot, volume) == {1: ONES}
    await until("n1 has let go", lambda: cluster.machine_of("n1").snapshots == {})
    await cluster.harness.call(REVERT, RevertRequest(project=PROJECT, name="v"))

    async def back() -> bool:
        return (await cluster.show("v", 0)).status.reverting is None

    await until("it has gone back", back)
    assert cluster.machine_of("n3").replicas[volume.meta.id].blocks == {1: ONES}


@pytest.mark.parametrize("operation", ["begin_part", "fill_part", "complete_part", "drop"])
@pytest.mark.parametrize("when", ["fail_before", "fail_after"])
async def test_a_cut_in_the_middle_of_a_copy_is_gone_on_from(
    cluster: Kept, operation: str, when: str
) -> None:
    volume = await cluster.make("v", replicas=2, nodes=("n1", "n2"))
    cluster.write(volume, 1, ONES)
    cluster.machine_of("n2").replicas[volume.meta.id].blocks[2] = TWOS
    getattr(cluster.machine_of("n2"), when)[operation] = 1
    snapshot = await take(cluster, "s", "v")
    await cluster.harness.crash("storage", "n2")
    await cluster.harness.start("storage", bootstrap, node="n2")
    await cluster.kept_on("s", "n1", "n2")
    assert cluster.part("n2", snapshot, volume) == {1: ONES}
    await drop(cluster, "s")
    await cluster.harness.crash("storage", "n2")
    await cluster.harness.start("storage", bootstrap, node="n2")
    await until("it is gone", lambda: gone(cluster, "s"), 90)
    await until("from all", lambda: not any(cluster.machine_of(n).snapshots for n in ALL))


async def test_where_there_is_no_space_for_a_copy_that_is_told_and_tried_again(
    cluster: Kept,
) -> None:
    volume = await cluster.make("v", size_gib=4, replicas=2, nodes=("n1", "n2"))
    cluster.write(volume, 1, ONES)
    await cluster.make("x", size_gib=5, nodes=("n2",))
    snapshot = await take(cluster, "s", "v")

    async def refused() -> bool:
        told = (await show(cluster, "s")).status.condition("Copied")
        return told is not None and told.reason == "NoSpace" and told.message.startswith("n2: ")

    await until("that is told", refused)
    assert (await show(cluster, "s")).status.parts[0].nodes == ("n1",)
    await cluster.delete("x")
    await cluster.kept_on("s", "n1", "n2")
    assert cluster.part("n2", snapshot, volume) == {1: ONES}


async def test_a_cluster_never_gives_up_the_last_copy_of_a_snapshot(cluster: Kept) -> None:
    """Its node has no replica any more, and the new one has not got it yet."""
    volume = await cluster.make("v", replicas=1, nodes=("n1",))
    cluster.write(volume, 1, ONES)
    snapshot = await take(cluster, "s", "v")
    cluster.machine_of("n3").fail_before["fill_part"] = 10**6
    cluster.machine_of("n3").fail_before["complete_part"] = 10**6
    request = MoveReplicaRequest(
        project=PROJECT, name="v", source=NodeName("n1"), target=NodeName("n3")
    )
    await cluster.harness.call(MOVE, request)
    await cluster.lies_on("v", "n3")

    async def coming() -> bool:
        return (await show(cluster, "s")).status.parts[0].nodes == ("n1", "n3")

    await until("it is coming", coming)
    assert cluster.part("n1", snapshot, volume) == {1: ONES}
    cluster.machine_of("n3").fail_before.clear()
    await cluster.kept_on("s", "n3")
    assert cluster.part("n3", snapshot, volume) == {1: ONES}
