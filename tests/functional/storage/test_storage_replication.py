"""A replicated volume on three nodes, among fakes: lost replicas leave, come back, and move on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.functional.storage.conftest import NAMES, PROJECT, until
from tests.functional.storage.test_storage_healing_service import ALL, Cluster

from trivet.contracts.model import GIB, NodeName
from trivet.contracts.storage.endpoints.volume_attach import ENDPOINT as ATTACH
from trivet.contracts.storage.endpoints.volume_attach import AttachRequest
from trivet.contracts.storage.engine import AttachedVolume
from trivet.contracts.storage.pool import PoolMember
from trivet.contracts.storage.volume import Attachment, Missing, ReplicaState, Volume
from trivet.storage.bootstrap import bootstrap
from trivet.storage.domain.replication import REPAIR
from trivet.testing.fakes import plugin as fakes
from trivet.testing.fakes.volume_engine import FakeVolumeEngine
from trivet.testing.fakes.volume_machine import BLOCK
from trivet.testing.fakes.volume_replication import Hangs
from trivet.testing.harness import Harness

ONES, TWOS, THREES = (bytes([n]) * BLOCK for n in (1, 2, 3))


class Replicated(Cluster):
    """With a volume `v` of two replicas, on n1 and n2, and a guest."""

    volume: Volume

    async def attach_on(self, node: str) -> Attachment:
        request = AttachRequest(project=PROJECT, name="v", holder="vm/1", node=NodeName(node))
        return await self.harness.call(ATTACH, request)

    def engine(self, node: str) -> FakeVolumeEngine:
        folder = self.harness.folder / "state" / "storage" / "fake-engine"
        return self.engines[folder, node]

    @property
    def engines(self) -> dict[tuple[Path, str], FakeVolumeEngine]:
        return ENGINES

    def graph(self, node: str) -> AttachedVolume:
        return self.engine(node)._attached(self.volume.meta.id)

    async def write(self, node: str, block: int, data: bytes) -> None:
        """As a guest does, which is stopped by an error and let on when the disk is there."""
        while True:
            try:
                return self.engine(node).write(self.graph(node), block * BLOCK, data)
            except Hangs:
                await asyncio.sleep(0.05)
            except (OSError, KeyError):
                await asyncio.sleep(0.05)
                await self.attach_on(node)

    def kept(self, node: str, block: int) -> bytes:
        replica = self.machine_of(node).replicas[self.volume.meta.id]
        return replica.read(block * BLOCK, BLOCK)

    def kill_server(self, node: str) -> None:
        self.machine_of(node).servers.clear()

    async def states(self) -> dict[str, str]:
        shown = await self.show("v")
        return {r.node: ("suspect " if r.suspect else "") + r.state for r in shown.status.replicas}

    async def whole(self, *nodes: str) -> None:
        async def good() -> bool:
            return await self.states() == dict.fromkeys(nodes, ReplicaState.IN_SYNC.value)

        await until(f"in sync on {nodes}", good, 20)


ENGINES: dict[tuple[Path, str], FakeVolumeEngine] = {}


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replicated]:
    opened = FakeVolumeEngine.open

    async def known(self: FakeVolumeEngine) -> None:
        ENGINES[self._context.state_dir, self._context.node] = self
        await opened(self)

    monkeypatch.setattr(FakeVolumeEngine, "open", known)
    configs = {"fake-engine": {"pool_bytes": 10 * GIB}}
    names = {**NAMES, "replica_silent_s": 1.0, "serve_s": 1.0}
    async with Harness(tmp_path, plugins=(fakes,), storage=names, configs=configs) as harness:
        made = Replicated(harness)
        await made.up()
        members = tuple(PoolMember(node=node, file_gib=10) for node in ALL)
        await made.pool("p", members=members, overcommit=1.0)
        made.volume = await made.make("v", replicas=2, nodes=("n1", "n2"))
        yield made
        ENGINES.clear()


async def test_a_killed_server_is_missed_for_a_moment(cluster: Replicated) -> None:
    """The write goes on without it, and it gets what it missed: only that."""
    await cluster.attach_on("n1")
    await cluster.write("n1", 0, ONES)
    cluster.kill_server("n2")
    await cluster.write("n1", 1, TWOS)
    assert cluster.kept("n1", 1) == TWOS
    await cluster.whole("n1", "n2")
    assert cluster.kept("n2", 1) == TWOS
    await cluster.write("n1", 2, THREES)
    assert cluster.kept("n2", 2) == THREES


async def test_a_server_that_dies_while_nobody_writes_comes_back(cluster: Replicated) -> None:
    """Its host is not asked for ever whether that server greets."""
    await cluster.attach_on("n1")
    session = dict(cluster.machine_of("n2").sessions)
    cluster.kill_server("n2")
    await until("it is served anew", lambda: cluster.machine_of("n2").sessions != session, 20)
    await cluster.whole("n1", "n2")


async def test_a_hung_host_is_broken_off(cluster: Replicated) -> None:
    await cluster.attach_on("n1")
    cluster.machine_of("n2").hung.add(cluster.volume.meta.id)
    await cluster.write("n1", 0, ONES)
    assert (await cluster.states())["n2"] != "in_sync"
    cluster.machine_of("n2").hung.clear()
    await cluster.whole("n1", "n2")
    assert cluster.kept("n2", 0) == ONES


async def test_the_local_replica_may_be_the_one_that_fails(cluster: Replicated) -> None:
    await cluster.attach_on("n1")
    cluster.kill_server("n1")
    await cluster.write("n1", 0, ONES)
    await cluster.whole("n1", "n2")
    assert cluster.kept("n1", 0) == cluster.kept("n2", 0) == ONES


async def test_a_new_holder_begins_where_the_dead_one_ended(cluster: Replicated) -> None:
    """What both have is compared before both are read; who was away misses what was written."""
    first = await cluster.attach_on("n1")
    await cluster.write("n1", 0, ONES)
    await cluster.harness.crash("storage", "n1")
    second = await cluster.attach_on("n2")
    assert second.epoch == first.epoch + 1
    await cluster.write("n2", 1, TWOS)
    shown = await cluster.show("v")
    (away,) = [r for r in shown.status.replicas if r.node == "n1"]
    assert (away.state, away.missing) == (ReplicaState.STALE, Missing.DIFFERENCES)
    engine, there = cluster.engine("n1"), cluster.graph("n1")
    with pytest.raises(OSError, match="error"):
        engine.write(there, 0, THREES)
    await cluster.harness.start("storage", bootstrap, node="n1")
    await cluster.whole("n1", "n2")
    assert [cluster.kept("n1", n) for n in (0, 1)] == [cluster.kept("n2", n) for n in (0, 1)]
    assert cluster.kept("n1", 1) == TWOS


async def test_an_end_in_order_leaves_nothing_to_compare(cluster: Replicated) -> None:
    await cluster.attach_on("n1")
    await cluster.write("n1", 0, ONES)
    assert (await cluster.show("v")).status.unclean
    await cluster.detach("v")
    assert not (await cluster.show("v")).status.unclean
    await cluster.attach_on("n2")
    assert await cluster.states() == {"n1": "in_sync", "n2": "in_sync"}


async def test_the_agent_is_killed_while_a_replica_is_away(cluster: Replicated) -> None:
    """Its successor knows of nothing but what is recorded and what is there."""
    await cluster.attach_on("n1")
    cluster.machine_of("n2").hung.add(cluster.volume.meta.id)
    await cluster.write("n1", 0, ONES)
    await cluster.harness.crash("storage", "n1")
    await cluster.harness.start("storage", bootstrap, node="n1")
    cluster.machine_of("n2").hung.clear()
    await cluster.whole("n1", "n2")
    assert cluster.kept("n2", 0) == ONES


async def test_a_volume_of_one_becomes_one_of_two_and_back(cluster: Replicated) -> None:
    """While it is held: its graph is made again behind the same socket."""
    await cluster.detach("v")
    cluster.volume = await cluster.make("w", replicas=1, nodes=("n1",))
    request = AttachRequest(project=PROJECT, name="w", holder="vm/1", node=NodeName("n1"))
    held = await cluster.harness.call(ATTACH, request)
    assert cluster.graph("n1").slots == 0
    cluster.engine("n1").write(cluster.graph("n1"), 0, ONES)
    await cluster.edit("w", replicas=2)

    async def two() -> bool:
        shown = await cluster.show("w")
        good = [r for r in shown.status.replicas if r.state is ReplicaState.IN_SYNC]
        return len(good) == 2

    await until("it has two replicas", two, 20)
    assert cluster.graph("n1").socket == held.socket
    (other,) = {"n2", "n3"} & set(cluster.graph("n1").members)
    assert cluster.kept(other, 0) == ONES
    await cluster.edit("w", replicas=1)

    async def one() -> bool:
        # While the graph is made again there is none.
        found = await cluster.engine("n1").attached(cluster.volume.meta.id)
        return [graph.slots for graph in found] == [0]

    await until("it has one again", one, 20)
    cluster.engine("n1").write(cluster.graph("n1"), 1, TWOS)


async def test_a_guest_takes_what_storage_holds_for_repair(cluster: Replicated) -> None:
    """It gets an attachment of its own, never that of the repair, which ends."""
    request = AttachRequest(project=PROJECT, name="v", holder=REPAIR, node=NodeName("n1"))
    repair = await cluster.harness.call(ATTACH, request)
    mine = await cluster.attach_on("n1")
    assert (mine.holder, mine.epoch) == ("vm/1", repair.epoch + 1)
    await cluster.write("n1", 0, ONES)
    assert cluster.kept("n1", 0) == cluster.kept("n2", 0) == ONES


async def test_a_repair_whose_node_died_is_not_waited_for(cluster: Replicated) -> None:
    request = AttachRequest(project=PROJECT, name="v", holder=REPAIR, node=NodeName("n1"))
    await cluster.harness.call(ATTACH, request)
    await cluster.harness.crash("storage", "n1")
    assert (await cluster.attach_on("n2")).holder == "vm/1"


async def test_another_run_of_the_holder_begins_anew(cluster: Replicated) -> None:
    """A guest that died may have left a write on the way: the next run must not see it come and
    go, so the graph of the former one is ended before. The same run finds it again."""

    async def attach(run: int | None) -> Attachment:
        request = AttachRequest(
            project=PROJECT, name="v", holder="vm/1", node=NodeName("n1"), run=run
        )
        return await cluster.harness.call(ATTACH, request)

    first = await attach(1)
    assert (await attach(1)).epoch == (await attach(None)).epoch == first.epoch
    await cluster.write("n1", 0, ONES)
    second = await attach(2)
    assert (second.epoch, second.run) == (first.epoch + 1, 2)
    assert (await attach(None)).epoch == second.epoch
    # It ended in order: there is nothing to compare.
    assert await cluster.states() == {"n1": "in_sync", "n2": "in_sync"}


async def test_a_replica_that_refuses_writes_is_left_behind(cluster: Replicated) -> None:
    """Its server lives and answers, with errors: the guest does not wait for it to end."""
    await cluster.attach_on("n1")
    replica = cluster.machine_of("n2").replicas[cluster.volume.meta.id]
    replica.refuses = True
    await cluster.write("n1", 0, ONES)
    assert (await cluster.states())["n2"] != "in_sync"
    replica.refuses = False
    await cluster.whole("n1", "n2")
    assert cluster.kept("n2", 0) == ONES


async def test_where_all_refuse_writes_everything_waits(cluster: Replicated) -> None:
    """As on a full pool: nobody is given up, and all go on when there is room."""
    await cluster.attach_on("n1")
    replicas = [cluster.machine_of(n).replicas[cluster.volume.meta.id] for n in ("n1", "n2")]
    for replica in replicas:
        replica.refuses = True
    for _ in range(20):
        with pytest.raises(OSError, match="error"):
            cluster.engine("n1").write(cluster.graph("n1"), 0, ONES)
        await asyncio.sleep(0.05)
    for replica in replicas:
        replica.refuses = False
    assert await cluster.states() == {"n1": "in_sync", "n2": "in_sync"}
    await cluster.write("n1", 0, ONES)
    assert cluster.kept("n1", 0) == cluster.kept("n2", 0) == ONES


@pytest.mark.parametrize("node", ["n1", "n2"])
async def test_a_block_that_can_not_be_read_is_written_again(
    cluster: Replicated, node: str
) -> None:
    """The guest reads it from another replica, and sees no error."""
    await cluster.attach_on(node)
    await cluster.write(node, 5, ONES)
    replica = cluster.machine_of(node).replicas[cluster.volume.meta.id]
    replica.bad.add(5)
    engine = cluster.engine(node)
    assert engine.read(cluster.graph(node), 5 * BLOCK, BLOCK) == ONES
    await until("it is written again", lambda: not replica.bad, 20)
    await cluster.whole("n1", "n2")
    assert cluster.kept(node, 5) == ONES
