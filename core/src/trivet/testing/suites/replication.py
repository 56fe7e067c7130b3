"""The law for engines that keep several replicas of an attached volume alike, as tests: subclass
`ReplicationSuite` (and `CopyingSuite`) and provide `cluster`.

A cluster is three nodes, each with an engine and a pool, and what only a test does to them. The
volume `V` is attached on the first node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Protocol

import pytest

from trivet.contracts.errors import CONFLICT, INVALID, NOT_FOUND, Refused
from trivet.contracts.model import MIB, ResourceId
from trivet.contracts.storage.engine import (
    AttachedVolume,
    AttachSpec,
    MemberState,
    ReplicaSpec,
    ServedReplica,
    VolumeEngine,
)
from trivet.contracts.storage.replication import Replication

SIZE = 8 * MIB
BLOCK = 65536
V = ResourceId("volume-00000000000000aa")
NODES = N1, N2, N3 = ("n1", "n2", "n3")
READS, WRITES, FAILED = MemberState.READS, MemberState.WRITES, MemberState.FAILED
SOON_S = 20.0


class ReplicatedEngine(VolumeEngine, Replication, Protocol):
    """What is tested here."""


class Cluster(Protocol):
    """Three nodes, with open engines and a pool each."""

    pool: ResourceId

    def engine(self, node: str) -> ReplicatedEngine:
        """The engine of a node."""
        ...

    def address(self, node: str) -> str:
        """Its address in the storage network."""
        ...

    async def write(self, attached: AttachedVolume, offset: int, data: bytes) -> None:
        """Write as a guest on the first node, all bytes alike; raises OSError where it fails,
        waits where a replica hangs."""
        ...

    async def read(self, attached: AttachedVolume, offset: int, length: int) -> bytes:
        """Read as a guest; raises OSError where it fails."""
        ...

    async def kept(self, node: str, offset: int, length: int) -> bytes:
        """What a node's replica of `V` has there."""
        ...

    async def kill_servers(self, node: str) -> None:
        """Kill what serves the replica of a node, without warning."""
        ...

    async def kill_graph(self) -> None:
        """Kill what the volume is attached by, without warning."""
        ...

    async def hang(self, node: str) -> None:
        """Have what serves the replica of a node answer nothing any more."""
        ...

    async def wake(self, node: str) -> None:
        """Let it go on."""
        ...

    async def reopen(self, node: str) -> None:
        """Close a node's engine, and open another one over the same state."""
        ...


async def serve(
    cluster: Cluster, node: str, epoch: int = 1, *, fresh: bool = True
) -> ServedReplica:
    """Serve the replica of a node to the others."""
    there = cluster.address(node)
    return await cluster.engine(node).serve(V, epoch, address=there, fresh=fresh)


async def make(cluster: Cluster, *nodes: str) -> tuple[ServedReplica, ...]:
    """Make and serve replicas on these nodes."""
    spec = ReplicaSpec(volume=V, pool=cluster.pool, size_bytes=SIZE, generation=1)
    for node in nodes:
        await cluster.engine(node).create(spec)
    return tuple([await serve(cluster, node) for node in nodes])


async def attach(
    cluster: Cluster, *nodes: str, slots: int = 3, writes_only: frozenset[str] = frozenset()
) -> AttachedVolume:
    """The volume over replicas on these nodes, attached on the first node."""
    spec = AttachSpec(
        volume=V,
        epoch=1,
        size_bytes=SIZE,
        replicas=await make(cluster, *nodes),
        slots=slots,
        writes_only=writes_only,
        number=1,
    )
    return await cluster.engine(N1).attach(spec)


async def members(cluster: Cluster) -> dict[str, MemberState]:
    """The members of the graph."""
    (there,) = await cluster.engine(N1).attached(V)
    assert there.healthy
    assert there.free_slots == there.slots - len(there.members)
    return there.members


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds, within reason."""
    async with asyncio.timeout(SOON_S):
        while not await condition():  # noqa: ASYNC110 - there is nobody to set an event
            await asyncio.sleep(0.02)


class ReplicationSuite:
    """What every engine must pass that has `Replication`."""

    async def test_every_member_has_every_write(self, cluster: Cluster) -> None:
        """Reads and writes go on at every number of replicas, over slots that hold nothing."""
        there = await attach(cluster, N1, N2, N3, slots=4)
        assert (there.slots, there.number, there.free_slots) == (4, 1, 1)
        assert there.members == {N1: READS, N2: READS, N3: READS}
        await cluster.write(there, 0, b"\x01" * BLOCK)
        await cluster.write(there, SIZE - BLOCK, b"\x02" * BLOCK)
        for node in NODES:
            assert await cluster.kept(node, 0, BLOCK) == b"\x01" * BLOCK
            assert await cluster.kept(node, SIZE - BLOCK, BLOCK) == b"\x02" * BLOCK
        assert await cluster.read(there, 0, BLOCK) == b"\x01" * BLOCK

    async def test_a_server_greets_while_it_lives(self, cluster: Cluster) -> None:
        """On this node and from another; not while it hangs, nor when it is gone."""
        (served,) = await make(cluster, N2)
        for node in (N1, N2):
            assert await cluster.engine(node).greets(served)
        await cluster.hang(N2)
        assert not await cluster.engine(N1).greets(served)
        await cluster.wake(N2)
        assert await cluster.engine(N1).greets(served)
        await cluster.kill_servers(N2)
        assert not await cluster.engine(N1).greets(served)

    async def test_who_serves_a_graph_is_found_again(self, cluster: Cluster) -> None:
        """By another engine, too; not one that failed."""
        there = await attach(cluster, N1, N2)
        await cluster.reopen(N1)
        engine = cluster.engine(N1)
        for wanted in ((N1, N2), (N1,)):
            servers = await engine.servers(V)
            assert tuple(sorted(served.node for served in servers)) == wanted
            assert [await engine.greets(served) for served in servers] == [True] * len(wanted)
            assert {(served.volume, served.epoch) for served in servers} == {(V, there.epoch)}
            await cluster.kill_servers(N2)
        await engine.detach(V)
        with pytest.raises(Refused) as refused:
            await engine.servers(V)
        assert refused.value.code is NOT_FOUND

    async def test_what_can_not_be_attached_is_refused(self, cluster: Cluster) -> None:
        """More replicas than slots, one node twice, none that serves reads."""
        one, two = await make(cluster, N1, N2)
        spec = AttachSpec(volume=V, epoch=1, size_bytes=SIZE, replicas=(one, two), slots=2)
        for wrong in (
            {"slots": 1},
            {"slots": 0},
            {"replicas": (one, one)},
            {"replicas": (one, two.model_copy(update={"node": ""}))},
            {"writes_only": frozenset((N1, N2))},
        ):
            with pytest.raises(Refused) as refused:
                await cluster.engine(N1).attach(spec.model_copy(update=wrong))
            assert refused.value.code is INVALID
        assert await cluster.engine(N1).attached() == ()

    async def test_attached_again_it_is_the_same_unless_it_is_another(
        self, cluster: Cluster
    ) -> None:
        """By number and slots; members that changed since stay as they are."""
        there = await attach(cluster, N1, N2)
        engine = cluster.engine(N1)
        await engine.drop_member(V, N2)
        (now,) = await engine.attached(V)
        local = await serve(cluster, N1, fresh=False)
        spec = AttachSpec(volume=V, epoch=1, size_bytes=SIZE, replicas=(local,), slots=3, number=1)
        assert await engine.attach(spec) == now
        again = await engine.attach(spec.model_copy(update={"number": 2}))
        assert (again.number, again.socket, again.export) == (2, there.socket, there.export)
        wider = await engine.attach(spec.model_copy(update={"number": 2, "slots": 4}))
        assert wider.slots == 4
        await cluster.write(wider, 0, b"\x01" * BLOCK)

    async def test_a_member_that_died_fails_writes_until_it_is_dropped(
        self, cluster: Cluster
    ) -> None:
        """It is told as it happens, and told by a look; then the others go on without it."""
        there = await attach(cluster, N1, N2, N3)
        engine = cluster.engine(N1)
        told = engine.failures()
        failure = asyncio.ensure_future(anext(told))
        await asyncio.sleep(0)
        await cluster.kill_servers(N2)
        with pytest.raises(OSError):  # noqa: PT011 - whatever the engine's way to fail is
            await cluster.write(there, 0, b"\x01" * BLOCK)
        assert ((await asyncio.wait_for(failure, SOON_S)).volume, failure.result().node) == (V, N2)
        assert await members(cluster) == {N1: READS, N2: FAILED, N3: READS}
        with pytest.raises(OSError):  # noqa: PT011
            await cluster.write(there, 0, b"\x02" * BLOCK)
        for _ in range(2):
            await engine.drop_member(V, N2)
            assert await members(cluster) == {N1: READS, N3: READS}
        await cluster.write(there, 0, b"\x03" * BLOCK)
        assert await cluster.kept(N3, 0, BLOCK) == b"\x03" * BLOCK
        assert await cluster.kept(N2, 0, BLOCK) != b"\x03" * BLOCK
        assert await cluster.read(there, 0, BLOCK) == b"\x03" * BLOCK

    async def test_deaths_are_told_to_nobodys_writes(self, cluster: Cluster) -> None:
        """The local server's, and then the graph's: a guest may write only much later."""
        await attach(cluster, N1, N2)
        engine = cluster.engine(N1)
        told = engine.failures()
        for kill, node in ((partial(cluster.kill_servers, N1), N1), (cluster.kill_graph, "")):
            failure = asyncio.ensure_future(anext(told))
            await asyncio.sleep(0)
            await kill()
            heard = await asyncio.wait_for(failure, SOON_S)
            assert (heard.volume, heard.node) == (V, node)
        (there,) = await engine.attached(V)
        assert not there.healthy

    async def test_the_local_member_may_go_too(self, cluster: Cluster) -> None:
        """Reads go to another; admitted again it gets writes, promoted it is read."""
        there = await attach(cluster, N1, N2)
        engine = cluster.engine(N1)
        await cluster.write(there, 0, b"\x01" * BLOCK)
        await cluster.kill_servers(N1)
        assert await cluster.read(there, 0, BLOCK) == b"\x01" * BLOCK
        await until(lambda: has(cluster, {N1: FAILED, N2: READS}))
        await engine.drop_member(V, N1)
        await cluster.write(there, 0, b"\x02" * BLOCK)
        await engine.admit(V, await serve(cluster, N1))
        await cluster.write(there, BLOCK, b"\x03" * BLOCK)
        assert await cluster.kept(N1, BLOCK, BLOCK) == b"\x03" * BLOCK
        # What it missed it still misses, and nobody reads that.
        assert await cluster.kept(N1, 0, BLOCK) == b"\x01" * BLOCK
        assert await cluster.read(there, 0, BLOCK) == b"\x02" * BLOCK
        await cluster.write(there, 0, b"\x04" * BLOCK)
        for _ in range(2):
            await engine.promote(V, N1)
            assert await members(cluster) == {N1: READS, N2: READS}
        await cluster.kill_servers(N2)
        await engine.drop_member(V, N2)
        assert await cluster.read(there, 0, 2 * BLOCK) == b"\x04" * BLOCK + b"\x03" * BLOCK

    async def test_reads_are_local_again_after_the_local_one_came_late(
        self, cluster: Cluster
    ) -> None:
        """The local replica joins a graph of others, and serves the reads from its promotion."""
        there = await attach(cluster, N2, N3)
        (local,) = await make(cluster, N1)
        engine = cluster.engine(N1)
        await cluster.write(there, 0, b"\x01" * BLOCK)
        await engine.admit(V, local)
        assert await members(cluster) == {N1: WRITES, N2: READS, N3: READS}
        assert await cluster.read(there, 0, BLOCK) == b"\x01" * BLOCK
        await cluster.write(there, 0, b"\x02" * BLOCK)
        await engine.promote(V, N1)
        for node in (N2, N3):
            await cluster.hang(node)
        assert await cluster.read(there, 0, BLOCK) == b"\x02" * BLOCK
        for node in (N2, N3):
            await cluster.wake(node)
        await cluster.write(there, 0, b"\x03" * BLOCK)
        for node in NODES:
            assert await cluster.kept(node, 0, BLOCK) == b"\x03" * BLOCK

    async def test_for_writes_only_serves_no_read(self, cluster: Cluster) -> None:
        """Also one that was attached so."""
        there = await attach(cluster, N1, N2, writes_only=frozenset((N1,)))
        assert there.members == {N1: WRITES, N2: READS}
        await cluster.write(there, 0, b"\x01" * BLOCK)
        await cluster.kill_servers(N2)
        with pytest.raises(OSError):  # noqa: PT011
            await cluster.read(there, 0, BLOCK)
        assert await cluster.kept(N1, 0, BLOCK) == b"\x01" * BLOCK

    async def test_a_member_that_hangs_is_broken_off(self, cluster: Cluster) -> None:
        """What waits for it fails; and nothing that was meant for it reaches it later."""
        there = await attach(cluster, N1, N2, N3)
        engine = cluster.engine(N1)
        await cluster.hang(N3)
        write = asyncio.ensure_future(cluster.write(there, 0, b"\x01" * BLOCK))
        done, _ = await asyncio.wait([write], timeout=0.5)
        assert not done
        for _ in range(2):
            await engine.break_off(V, N3)
        with pytest.raises(OSError):  # noqa: PT011
            await asyncio.wait_for(write, SOON_S)
        assert (await members(cluster))[N3] is FAILED
        await cluster.wake(N3)
        assert (await members(cluster))[N3] is FAILED
        await engine.drop_member(V, N3)
        await cluster.write(there, 0, b"\x02" * BLOCK)
        assert await members(cluster) == {N1: READS, N2: READS}

    async def test_a_member_that_hangs_can_be_dropped(self, cluster: Cluster) -> None:
        """Also without being broken off before."""
        there = await attach(cluster, N1, N2, N3)
        await cluster.hang(N2)
        write = asyncio.ensure_future(cluster.write(there, 0, b"\x01" * BLOCK))
        done, _ = await asyncio.wait([write], timeout=0.5)
        assert not done
        await cluster.engine(N1).drop_member(V, N2)
        with suppress(OSError):  # it may have failed, but waits no more
            await asyncio.wait_for(write, SOON_S)
        await cluster.write(there, 0, b"\x02" * BLOCK)
        await cluster.wake(N2)

    async def test_a_server_that_came_back_is_not_written_by_the_old_graph(
        self, cluster: Cluster
    ) -> None:
        """Nobody may silently connect again and leave out what was missed."""
        there = await attach(cluster, N1, N2)
        for node, data in ((N1, b"\x07" * BLOCK), (N2, b"\x08" * BLOCK)):
            await cluster.kill_servers(node)
            await serve(cluster, node, fresh=False)
            for _ in range(3):
                with pytest.raises(OSError):  # noqa: PT011
                    await cluster.write(there, 0, data)
            assert await cluster.kept(node, 0, BLOCK) != data
        assert await members(cluster) == {N1: FAILED, N2: FAILED}

    async def test_members_outlive_the_engine(self, cluster: Cluster) -> None:
        """Another engine finds them, changes them, and hears of their failures."""
        there = await attach(cluster, N1, N2)
        engine = cluster.engine(N1)
        await engine.drop_member(V, N2)
        await engine.admit(V, await serve(cluster, N2))
        before = await members(cluster)
        await cluster.reopen(N1)
        engine = cluster.engine(N1)
        assert await members(cluster) == before == {N1: READS, N2: WRITES}
        await engine.promote(V, N2)
        await cluster.write(there, 0, b"\x01" * BLOCK)
        assert await members(cluster) == {N1: READS, N2: READS}

    async def test_what_is_not_there_is_refused(self, cluster: Cluster) -> None:
        """A volume that is not attached, or without slots; a member that is none; no room."""
        engine = cluster.engine(N1)
        one, two, three = await make(cluster, *NODES)
        await engine.attach(AttachSpec(volume=V, epoch=1, size_bytes=SIZE, replicas=(one,)))
        for act in (
            engine.drop_member(V, N1),
            engine.admit(V, two),
            engine.promote(V, N1),
            engine.break_off(V, N1),
            engine.drop_member(ResourceId("volume-none"), N1),
        ):
            with pytest.raises(Refused) as refused:
                await act
            assert refused.value.code is NOT_FOUND
        spec = AttachSpec(volume=V, epoch=1, size_bytes=SIZE, replicas=(one, two), slots=2)
        await engine.attach(spec)
        with pytest.raises(Refused) as refused:
            await engine.promote(V, N3)
        assert refused.value.code is NOT_FOUND
        with pytest.raises(Refused) as refused:
            await engine.admit(V, three)
        assert refused.value.code is CONFLICT
        await engine.admit(V, two)
        assert await members(cluster) == {N1: READS, N2: READS}

    async def test_a_graph_ends_in_order_unless_something_failed(self, cluster: Cluster) -> None:
        """Only then nothing is to be compared."""
        there = await attach(cluster, N1, N2)
        await cluster.write(there, 0, b"\x01" * BLOCK)
        assert await cluster.engine(N1).detach(V)
        assert await cluster.engine(N1).attached() == ()
        there = await attach(cluster, N1, N2)
        await cluster.kill_servers(N2)
        assert not await cluster.engine(N1).detach(V)
        there = await attach(cluster, N1, N2)
        await cluster.kill_servers(N2)
        with pytest.raises(OSError):  # noqa: PT011
            await cluster.write(there, 0, b"\x02" * BLOCK)
        await cluster.engine(N1).drop_member(V, N2)
        assert not await cluster.engine(N1).detach(V)


async def has(cluster: Cluster, expected: dict[str, MemberState]) -> bool:
    """Whether these are the members now."""
    return await members(cluster) == expected
