"""The law for what a graph knows of changes, and for copies to its members, as tests: subclass
`CopyingSuite` and provide `cluster`.
"""

from __future__ import annotations

import pytest

from trivet.contracts.errors import CONFLICT, NOT_FOUND, Refused, TrivetError
from trivet.contracts.model import MIB
from trivet.contracts.storage.replication import Copy, CopyState, Extent
from trivet.contracts.storage.volume import Missing
from trivet.testing.suites.replication import (
    BLOCK,
    N1,
    N2,
    N3,
    SIZE,
    Cluster,
    V,
    attach,
    make,
    serve,
    until,
)


class CopyingSuite:
    """What every engine must pass that has `Replication`."""

    async def test_changes_are_remembered_until_a_checkpoint(self, cluster: Cluster) -> None:
        """A flush alone forgets nothing, and one that fails neither."""
        there = await attach(cluster, N1, N2)
        engine = cluster.engine(N1)
        assert await changed(cluster) == 0
        await cluster.write(there, 0, b"\x01" * BLOCK)
        assert await changed(cluster) == BLOCK
        await engine.checkpoint(V, forget=False)
        assert await changed(cluster) == BLOCK
        await engine.checkpoint(V)
        assert await changed(cluster) == 0
        await cluster.write(there, BLOCK, b"\x02" * BLOCK)
        await cluster.kill_servers(N2)
        for forget in (True, False):
            with pytest.raises(TrivetError):
                await engine.checkpoint(V, forget=forget)
        assert await changed(cluster) == BLOCK

    async def test_only_changes_are_copied_to_one_that_was_away(self, cluster: Cluster) -> None:
        """While the guest writes on; then it may be read, and is like the others."""
        there = await attach(cluster, N1, N2)
        engine = cluster.engine(N1)
        await cluster.write(there, 0, b"\x01" * (16 * BLOCK))
        await engine.checkpoint(V)
        await cluster.kill_servers(N2)
        await engine.drop_member(V, N2)
        await cluster.write(there, 3 * BLOCK, b"\x02" * (2 * BLOCK))
        await engine.admit(V, await serve(cluster, N2))
        await cluster.write(there, 4 * BLOCK, b"\x03" * BLOCK)
        await engine.copy(V, N2, Missing.CHANGES)
        copy = await copied(cluster, N2)
        assert (copy.missing, copy.done_bytes, copy.total_bytes) == (
            Missing.CHANGES,
            2 * BLOCK,
            2 * BLOCK,
        )
        for _ in range(2):
            await engine.end_copy(V, N2)
            assert await engine.copies(V) == ()
        await engine.promote(V, N2)
        await cluster.write(there, 6 * BLOCK, b"\x04" * BLOCK)
        assert await same(cluster, N1, N2)
        assert await changed(cluster) == 3 * BLOCK  # another may still want them

    async def test_everything_is_copied_to_a_new_one(self, cluster: Cluster) -> None:
        """And what it had where the others have nothing is gone."""
        there = await attach(cluster, N1, N2)
        engine = cluster.engine(N1)
        await cluster.write(there, 2 * BLOCK, b"\x01" * BLOCK)
        (third,) = await make(cluster, N3)
        await engine.admit(V, third)
        await engine.copy(V, N3, Missing.ALL)
        await copied(cluster, N3)
        assert await same(cluster, N1, N3)
        await engine.drop_member(V, N3)
        await cluster.write(there, 2 * BLOCK, bytes(BLOCK))
        assert not await same(cluster, N1, N3)
        await engine.admit(V, await serve(cluster, N3))
        await engine.copy(V, N3, Missing.ALL)
        await copied(cluster, N3)
        assert await same(cluster, N1, N3)

    async def test_differences_are_copied_where_they_were_found(self, cluster: Cluster) -> None:
        """By the hashes that each node makes of its own replica."""
        there = await attach(cluster, N1, N2)
        engine = cluster.engine(N1)
        await cluster.write(there, 0, b"\x01" * (8 * BLOCK))
        await cluster.kill_servers(N2)
        await engine.drop_member(V, N2)
        for at in (2, 5, 40):
            await cluster.write(there, at * BLOCK, b"\x02" * BLOCK)
        await engine.admit(V, await serve(cluster, N2))
        whole = Extent(offset=0, length=SIZE)
        mine, other = [await cluster.engine(n).digest(V, whole, BLOCK) for n in (N1, N2)]
        assert mine.hashes[100] == other.hashes[100] == ""
        assert len(mine.hashes) == SIZE // BLOCK
        differ = [n for n, h in enumerate(mine.hashes) if h != other.hashes[n]]
        assert differ == [2, 5, 40]
        wanted = tuple(Extent(offset=n * BLOCK, length=BLOCK) for n in differ)
        await engine.copy(V, N2, Missing.DIFFERENCES, extents=wanted)
        assert (await copied(cluster, N2)).total_bytes == 3 * BLOCK
        assert await same(cluster, N1, N2)

    async def test_a_part_is_hashed_as_the_whole_is(self, cluster: Cluster) -> None:
        """From any offset, to the replica's end and no further."""
        there = await attach(cluster, N1)
        await cluster.write(there, SIZE - BLOCK, b"\x01" * BLOCK)
        engine = cluster.engine(N1)
        whole = await engine.digest(V, Extent(offset=0, length=SIZE), BLOCK)
        part = await engine.digest(V, Extent(offset=SIZE - 2 * BLOCK, length=9 * BLOCK), BLOCK)
        assert part.hashes == whole.hashes[-2:]
        assert part.hashes[0] == ""
        assert len(part.hashes[1]) >= 32
        with pytest.raises(Refused):
            await cluster.engine(N3).digest(V, Extent(offset=0, length=BLOCK), BLOCK)

    async def test_a_copy_ends_with_its_member(self, cluster: Cluster) -> None:
        """It fails when the member does, and is forgotten when that is dropped."""
        there = await attach(cluster, N1, N2)
        engine = cluster.engine(N1)
        await cluster.write(there, 0, b"\x01" * (64 * BLOCK))
        (third,) = await make(cluster, N3)
        await engine.admit(V, third)
        await engine.copy(V, N3, Missing.ALL, bytes_per_s=MIB)
        await engine.copy(V, N3, Missing.ALL, bytes_per_s=2 * MIB)
        assert [c.node for c in await engine.copies()] == [N3]
        await engine.drop_member(V, N3)
        assert await engine.copies() == ()
        await engine.admit(V, await serve(cluster, N3))
        await engine.copy(V, N3, Missing.CHANGES, bytes_per_s=MIB)
        await cluster.kill_servers(N3)
        await until(lambda: ended(cluster, N3))
        (copy,) = await engine.copies(V)
        assert copy.state is CopyState.FAILED
        assert copy.error
        await engine.drop_member(V, N3)
        await cluster.write(there, 0, b"\x02" * BLOCK)

    async def test_only_one_that_serves_no_read_is_copied_to(self, cluster: Cluster) -> None:
        """And only a member is."""
        await attach(cluster, N1, N2)
        engine = cluster.engine(N1)
        with pytest.raises(Refused) as refused:
            await engine.copy(V, N2, Missing.ALL)
        assert refused.value.code is CONFLICT
        with pytest.raises(Refused) as refused:
            await engine.copy(V, N3, Missing.ALL)
        assert refused.value.code is NOT_FOUND
        assert await engine.copies() == ()

    async def test_two_are_copied_to_at_once(self, cluster: Cluster) -> None:
        """Each by its own copy."""
        there = await attach(cluster, N1)
        engine = cluster.engine(N1)
        await cluster.write(there, 0, b"\x01" * (8 * BLOCK))
        others = await make(cluster, N2, N3)
        for served in others:
            await engine.admit(V, served)
        for node in (N2, N3):
            await engine.copy(V, node, Missing.ALL)
        await cluster.write(there, 4 * BLOCK, b"\x02" * BLOCK)
        for node in (N2, N3):
            await copied(cluster, node)
            await engine.end_copy(V, node)
            await engine.promote(V, node)
            assert await same(cluster, N1, node)


async def changed(cluster: Cluster) -> int:
    """What the graph has as changed."""
    (there,) = await cluster.engine(N1).attached(V)
    return there.changed_bytes


async def ended(cluster: Cluster, node: str) -> bool:
    """Whether the copy to a node has ended."""
    states = {c.node: c.state for c in await cluster.engine(N1).copies(V)}
    return states[node] is not CopyState.RUNNING


async def copied(cluster: Cluster, node: str) -> Copy:
    """The copy to a node, once it is done."""
    await until(lambda: ended(cluster, node))
    (copy,) = (c for c in await cluster.engine(N1).copies(V) if c.node == node)
    assert copy.state is CopyState.DONE, copy
    return copy


async def same(cluster: Cluster, one: str, other: str) -> bool:
    """Whether two replicas have the same bytes."""
    return await cluster.kept(one, 0, SIZE) == await cluster.kept(other, 0, SIZE)
