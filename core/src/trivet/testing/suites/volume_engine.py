"""The law for volume engines, as tests: subclass `VolumeEngineSuite` and provide `bench`.

A bench is an opened engine with a pool, and what only a test does to it: write and read as a
guest would, over what `attach` answered, and break things.
"""

from __future__ import annotations

from typing import Protocol

import pytest

from trivet.contracts.errors import CONFLICT, IN_USE, NOT_FOUND, Refused, Retry
from trivet.contracts.model import MIB, ResourceId
from trivet.contracts.storage.codes import NO_SPACE, SHRINK
from trivet.contracts.storage.engine import (
    AttachedVolume,
    AttachSpec,
    PoolOnNode,
    ReplicaSpec,
    Snapshots,
    VolumeEngine,
)
from trivet.contracts.storage.replication import Extent
from trivet.contracts.storage.snapshot_copies import SnapshotCopies
from trivet.contracts.storage.volume import Qos

SIZE = 16 * MIB
A = ResourceId("volume-000000000000000a")
B = ResourceId("volume-000000000000000b")
S = ResourceId("snapshot-000000000000001")
T = ResourceId("snapshot-000000000000002")
ONES, TWOS = b"\x01" * 65536, b"\x02" * 65536


class EngineBench(Protocol):
    """An engine on the bench, with an open pool of at most a few GiB."""

    engine: VolumeEngine
    pool: PoolOnNode

    async def write(self, attached: AttachedVolume, offset: int, data: bytes) -> None:
        """Write through the attached volume; raises OSError where the write fails."""
        ...

    async def read(self, attached: AttachedVolume, offset: int, length: int) -> bytes:
        """Read through the attached volume; raises OSError where the read fails."""
        ...

    async def kill_server(self, volume: ResourceId) -> None:
        """Kill what serves the replica, without warning."""
        ...

    async def kill_graph(self, volume: ResourceId) -> None:
        """Kill the attached graph, without warning."""
        ...

    async def reopen(self) -> None:
        """Close the engine, and open another one over the same state (and the pool)."""
        ...


async def make(bench: EngineBench, volume: ResourceId, **changes: object) -> None:
    """Create a replica on the bench."""
    spec = ReplicaSpec(volume=volume, pool=bench.pool.id, size_bytes=SIZE, generation=1)
    await bench.engine.create(spec.model_copy(update=changes))


async def attach(
    bench: EngineBench, volume: ResourceId, epoch: int, size_bytes: int = SIZE
) -> AttachedVolume:
    """Serve the replica in an epoch and attach it."""
    served = await bench.engine.serve(volume, epoch)
    return await bench.engine.attach(
        AttachSpec(volume=volume, epoch=epoch, size_bytes=size_bytes, replicas=(served,))
    )


class VolumeEngineSuite:
    """What every volume engine must pass."""

    async def test_pool_opens_twice_alike(self, bench: EngineBench) -> None:
        """Opening an open pool changes nothing and tells its size."""
        first = await bench.engine.open_pool(bench.pool)
        again = await bench.engine.open_pool(bench.pool)
        assert first.size_bytes == again.size_bytes > SIZE

    async def test_a_pool_grows_while_it_is_used(self, bench: EngineBench) -> None:
        """Opened with a larger member it has more room, and all that was there."""
        await make(bench, A)
        attached = await attach(bench, A, 1)
        await bench.write(attached, 0, ONES)
        before = await bench.engine.open_pool(bench.pool)
        size = bench.pool.member.file_gib
        if size is None:
            pytest.skip("the pool on the bench is not one that can be grown")
        member = bench.pool.member.model_copy(update={"file_gib": size + 1})
        larger = bench.pool.model_copy(update={"member": member})
        for _ in range(2):
            after = await bench.engine.open_pool(larger)
            assert after.size_bytes - before.size_bytes > 1000 * MIB
        assert await bench.read(attached, 0, len(ONES)) == ONES
        assert await bench.engine.attached() == (attached,)

    async def test_create_twice_is_once(self, bench: EngineBench) -> None:
        """Creating what is there alike answers the same; another size is refused."""
        await make(bench, A)
        await make(bench, A)
        (record,) = await bench.engine.replicas()
        assert (record.volume, record.size_bytes, record.complete) == (A, SIZE, True)
        assert record.serving is None
        with pytest.raises(Refused) as refused:
            await make(bench, A, size_bytes=2 * SIZE)
        assert refused.value.code is CONFLICT

    async def test_bytes_survive_a_new_epoch(self, bench: EngineBench) -> None:
        """What was written in one epoch is read in the next."""
        await make(bench, A)
        first = await attach(bench, A, 1)
        await bench.write(first, MIB, ONES)
        await bench.engine.detach(A)
        assert await bench.engine.attached() == ()
        second = await attach(bench, A, 2)
        assert await bench.read(second, MIB, len(ONES)) == ONES
        assert await bench.read(second, 0, len(ONES)) == bytes(len(ONES))

    async def test_attach_twice_is_once(self, bench: EngineBench) -> None:
        """Attaching again in the same epoch answers the same."""
        await make(bench, A)
        assert await attach(bench, A, 1) == await attach(bench, A, 1)
        assert len(await bench.engine.attached()) == 1

    async def test_an_old_epoch_can_write_no_more(self, bench: EngineBench) -> None:
        """Serving a newer epoch fences the holder of the older one, and it never comes back."""
        await make(bench, A)
        old = await attach(bench, A, 1)
        await bench.write(old, 0, ONES)
        await bench.engine.serve(A, 2)
        with pytest.raises(OSError):  # noqa: PT011 - whatever the engine's way to fail is
            await bench.write(old, 0, TWOS)
        with pytest.raises(Refused) as refused:
            await bench.engine.serve(A, 1)
        assert refused.value.code is CONFLICT
        new = await attach(bench, A, 2)
        assert await bench.read(new, 0, len(ONES)) == ONES

    async def test_a_fresh_server_ends_those_before(self, bench: EngineBench) -> None:
        """Also of the same epoch: what an earlier client still sends finds nobody."""
        await make(bench, A)
        old = await attach(bench, A, 1)
        await bench.write(old, 0, ONES)
        served = await bench.engine.serve(A, 1, fresh=True)
        assert served.boot
        with pytest.raises(OSError):  # noqa: PT011 - whatever the engine's way to fail is
            await bench.write(old, 0, TWOS)
        new = await attach(bench, A, 1)
        assert await bench.read(new, 0, len(ONES)) == ONES

    async def test_a_replica_is_served_to_other_nodes(self, bench: EngineBench) -> None:
        """Over TCP too, under the same epoch: its end is the end of both."""
        await make(bench, A)
        here = await bench.engine.serve(A, 1)
        assert (here.host, here.port) == (None, None)
        for _ in range(2):
            both = await bench.engine.serve(A, 1, address="127.0.0.1")
            assert both.host == "127.0.0.1"
            assert both.port is not None
            assert both.export == here.export
        spec = AttachSpec(volume=A, epoch=1, size_bytes=SIZE, replicas=(both,))
        attached = await bench.engine.attach(spec)
        await bench.write(attached, 0, ONES)
        assert await bench.read(attached, 0, len(ONES)) == ONES
        await bench.engine.end_serving(A, 2)
        with pytest.raises(OSError):  # noqa: PT011 - whatever the engine's way to fail is
            await bench.write(attached, 0, TWOS)
        assert [r.serving for r in await bench.engine.replicas()] == [None]

    async def test_ended_epochs_stay_ended(self, bench: EngineBench) -> None:
        """`end_serving` ends servers below the epoch, records it, and leaves a newer one."""
        await make(bench, A)
        await bench.engine.serve(A, 3)
        await bench.engine.end_serving(A, 3)
        assert [r.serving for r in await bench.engine.replicas()] == [3]
        await bench.engine.end_serving(A, 4)
        assert [r.serving for r in await bench.engine.replicas()] == [None]
        await bench.reopen()
        with pytest.raises(Refused) as refused:
            await bench.engine.serve(A, 3)
        assert refused.value.code is CONFLICT
        await bench.engine.serve(A, 4)

    async def test_attach_of_an_older_epoch_is_refused(self, bench: EngineBench) -> None:
        """A newer graph is not ended by an older attach."""
        await make(bench, A)
        served = await bench.engine.serve(A, 1)
        newer = await attach(bench, A, 2)
        with pytest.raises(Refused) as refused:
            await bench.engine.attach(
                AttachSpec(volume=A, epoch=1, size_bytes=SIZE, replicas=(served,))
            )
        assert refused.value.code is CONFLICT
        assert await bench.engine.attached() == (newer,)

    @pytest.mark.parametrize("linked", [True, False])
    async def test_a_clone_is_independent(self, bench: EngineBench, linked: bool) -> None:
        """A clone has its source's bytes, and neither sees what the other writes after."""
        await make(bench, A)
        source = await attach(bench, A, 1)
        await bench.write(source, MIB, ONES)
        await make(bench, B, source=A, linked=linked, size_bytes=2 * SIZE)
        clone = await attach(bench, B, 1)
        assert await bench.read(clone, MIB, len(ONES)) == ONES
        await bench.write(clone, MIB, TWOS)
        assert await bench.read(source, MIB, len(ONES)) == ONES
        await bench.engine.detach(A)
        await bench.engine.end_serving(A, 2)
        await bench.engine.remove(A)
        assert await bench.read(clone, MIB, len(TWOS)) == TWOS

    async def test_grow_keeps_bytes_and_never_shrinks(self, bench: EngineBench) -> None:
        """A replica grows, repeatedly alike, and a smaller size is refused."""
        await make(bench, A)
        await bench.write(await attach(bench, A, 1), 0, ONES)
        await bench.engine.detach(A)
        for _ in range(2):
            record = await bench.engine.grow(A, 2 * SIZE, 2)
            assert (record.size_bytes, record.generation) == (2 * SIZE, 2)
        with pytest.raises(Refused) as refused:
            await bench.engine.grow(A, SIZE, 3)
        assert refused.value.code is SHRINK
        grown = await attach(bench, A, 2)
        assert await bench.read(grown, 0, len(ONES)) == ONES
        assert await bench.read(grown, 2 * SIZE - 65536, 65536) == bytes(65536)

    async def test_a_graph_made_again_in_its_epoch_is_found_behind_its_socket(
        self, bench: EngineBench
    ) -> None:
        """What broke it does not matter: the same socket and export, and all bytes."""
        await make(bench, A)
        first = await attach(bench, A, 1)
        await bench.write(first, 0, ONES)
        for kill in (bench.kill_graph, bench.kill_server):
            await kill(A)
            assert await attach(bench, A, 1) == first
            assert await bench.read(first, 0, len(ONES)) == ONES
        assert await bench.engine.attached() == (first,)

    async def test_an_attached_volume_grows(self, bench: EngineBench) -> None:
        """Attaching it again in its epoch with the new size shows that size."""
        await make(bench, A)
        first = await attach(bench, A, 1)
        assert first.size_bytes == SIZE
        await bench.write(first, 0, ONES)
        await bench.engine.grow(A, 2 * SIZE, 2)
        served = await bench.engine.serve(A, 1)
        spec = AttachSpec(volume=A, epoch=1, size_bytes=2 * SIZE, replicas=(served,))
        grown = await bench.engine.attach(spec)
        assert grown == first.model_copy(update={"size_bytes": 2 * SIZE})
        assert await bench.engine.attached(A) == (grown,)
        assert await bench.read(grown, 0, len(ONES)) == ONES
        await bench.write(grown, 2 * SIZE - 65536, TWOS)

    async def test_bounds_change_while_attached(self, bench: EngineBench) -> None:
        """And outlive a graph that is made again, for they are asked for with it."""
        await make(bench, A)
        await bench.engine.limit(A, Qos(iops=100))
        await attach(bench, A, 1)
        for qos in (Qos(iops=100), Qos(iops=200, bytes_per_s=2**20), Qos()):
            await bench.engine.limit(A, qos)
            assert [a.qos for a in await bench.engine.attached(A)] == [qos]
        served = await bench.engine.serve(A, 2)
        spec = AttachSpec(volume=A, epoch=2, size_bytes=SIZE, replicas=(served,), qos=Qos(iops=50))
        assert (await bench.engine.attach(spec)).qos == Qos(iops=50)

    async def test_one_volume_is_looked_at_alone(self, bench: EngineBench) -> None:
        """A look that names a volume tells of that one."""
        await make(bench, A)
        await make(bench, B)
        attached = await attach(bench, A, 1)
        assert [r.volume for r in await bench.engine.replicas(B)] == [B]
        assert await bench.engine.attached(B) == ()
        assert await bench.engine.attached(A) == (attached,)
        assert await bench.engine.replicas(ResourceId("volume-none")) == ()

    async def test_remove_is_idempotent_and_refuses_what_is_served(
        self, bench: EngineBench
    ) -> None:
        """A served replica stays; an absent one is no error."""
        await make(bench, A)
        await bench.engine.serve(A, 1)
        with pytest.raises(Refused) as refused:
            await bench.engine.remove(A)
        assert refused.value.code is IN_USE
        await bench.engine.end_serving(A, 2)
        for _ in range(2):
            await bench.engine.remove(A)
        assert await bench.engine.replicas() == ()
        await bench.engine.detach(A)
        await bench.engine.end_serving(A, 9)

    async def test_a_dead_server_is_unhealthy(self, bench: EngineBench) -> None:
        """A replica's server that died is told, and the next epoch is healthy again."""
        await make(bench, A)
        await attach(bench, A, 1)
        await bench.kill_server(A)
        assert [a.healthy for a in await bench.engine.attached()] == [False]
        again = await attach(bench, A, 2)
        await bench.write(again, 0, ONES)
        assert await bench.engine.attached() == (again,)

    async def test_a_dead_graph_is_unhealthy(self, bench: EngineBench) -> None:
        """A graph that died is told, and the next epoch is healthy again."""
        await make(bench, A)
        await bench.write(await attach(bench, A, 1), 0, ONES)
        await bench.kill_graph(A)
        assert [a.healthy for a in await bench.engine.attached()] == [False]
        again = await attach(bench, A, 2)
        assert await bench.read(again, 0, len(ONES)) == ONES
        assert await bench.engine.attached() == (again,)

    async def test_a_new_engine_finds_everything(self, bench: EngineBench) -> None:
        """Servers, graphs and replicas outlive the engine."""
        await make(bench, A)
        await make(bench, B)
        attached = await attach(bench, A, 7)
        before = await bench.engine.replicas()
        await bench.reopen()
        assert await bench.engine.replicas() == before
        assert await bench.engine.attached() == (attached,)
        await bench.write(attached, 0, ONES)
        assert await attach(bench, A, 7) == attached

    async def test_a_full_pool_is_told_and_nothing_is_left(self, bench: EngineBench) -> None:
        """What can't be allocated is `Retry(NO_SPACE)`, and then another fits."""
        usage = await bench.engine.open_pool(bench.pool)
        with pytest.raises(Retry) as full:
            await make(bench, A, thin=False, size_bytes=2 * usage.size_bytes)
        assert full.value.code is NO_SPACE
        assert await bench.engine.replicas() == ()
        await make(bench, A, thin=False)

    async def test_a_pool_is_destroyed_when_empty(self, bench: EngineBench) -> None:
        """Not before; and closing what is not open is fine."""
        await make(bench, A)
        with pytest.raises(Refused) as refused:
            await bench.engine.close_pool(bench.pool.id, destroy=True)
        assert refused.value.code is IN_USE
        await bench.engine.remove(A)
        for _ in range(2):
            await bench.engine.close_pool(bench.pool.id, destroy=True)
        await bench.engine.open_pool(bench.pool)
        assert await bench.engine.replicas() == ()

    # --- engines that take snapshots -------------------------------------------------------

    async def test_a_snapshot_keeps_what_was_there(self, bench: EngineBench) -> None:
        """Of all its volumes; what is written after is not in it, and volumes go back to it."""
        engine = snapshots_of(bench)
        for volume in (A, B):
            await make(bench, volume)
            await bench.write(await attach(bench, volume, 1), 0, ONES)
        for _ in range(2):
            taken = await engine.take(S, (A, B))
            assert [(r.snapshot, r.volume, r.size_bytes) for r in taken] == [
                (S, A, SIZE),
                (S, B, SIZE),
            ]
            assert all(r.complete and r.used_bytes >= len(ONES) for r in taken)
        for volume in (A, B):
            await bench.write((await bench.engine.attached(volume))[0], 0, TWOS)
        with pytest.raises(Refused) as refused:
            await engine.revert(A, S, 2)
        assert refused.value.code is IN_USE
        await bench.engine.detach(A)
        await bench.engine.end_serving(A, 2)
        for _ in range(2):
            assert (await engine.revert(A, S, 2)).generation == 2
        assert await bench.read(await attach(bench, A, 2), 0, len(ONES)) == ONES
        assert await bench.read((await bench.engine.attached(B))[0], 0, len(ONES)) == TWOS

    async def test_a_volume_that_grew_keeps_its_size_when_it_goes_back(
        self, bench: EngineBench
    ) -> None:
        """The content is the snapshot's, the rest is empty."""
        await make(bench, A)
        await snapshots_of(bench).take(S, (A,))
        await bench.engine.grow(A, 2 * SIZE, 2)
        assert (await snapshots_of(bench).revert(A, S, 3)).size_bytes == 2 * SIZE
        assert (await attach(bench, A, 1, 2 * SIZE)).size_bytes == 2 * SIZE

    @pytest.mark.parametrize("linked", [True, False])
    async def test_a_clone_of_a_snapshot_stands_for_itself(
        self, bench: EngineBench, linked: bool
    ) -> None:
        """It has the snapshot's bytes, also when volume and snapshot are gone."""
        engine = snapshots_of(bench)
        await make(bench, A)
        await bench.write(await attach(bench, A, 1), 0, ONES)
        await engine.take(S, (A,))
        await bench.write((await bench.engine.attached(A))[0], 0, TWOS)
        await make(bench, B, source=A, snapshot=S, linked=linked)
        await bench.engine.detach(A)
        await bench.engine.end_serving(A, 2)
        await bench.engine.remove(A)
        assert [r.volume for r in await engine.snapshots()] == [A]
        for _ in range(2):
            await engine.drop(S)
        assert await engine.snapshots(S) == ()
        clone = await attach(bench, B, 1)
        assert await bench.read(clone, 0, len(ONES)) == ONES
        with pytest.raises(Refused) as refused:
            await engine.revert(B, S, 2)
        assert refused.value.code in (IN_USE, NOT_FOUND)

    async def test_snapshots_outlive_the_engine_and_keep_their_pool(
        self, bench: EngineBench
    ) -> None:
        """A pool with a snapshot is not empty."""
        await make(bench, A)
        before = await snapshots_of(bench).take(S, (A,))
        await bench.engine.remove(A)
        await bench.reopen()
        assert await snapshots_of(bench).snapshots() == before
        with pytest.raises(Refused) as refused:
            await bench.engine.close_pool(bench.pool.id, destroy=True)
        assert refused.value.code is IN_USE
        await snapshots_of(bench).drop(S)

    async def test_a_part_is_made_alike_to_one_that_was_cut_elsewhere(
        self, bench: EngineBench
    ) -> None:
        """It begins as the replica is, gets what differs, and then never changes."""
        engine, parts = snapshots_of(bench), parts_of(bench)
        await make(bench, A)
        attached = await attach(bench, A, 1)
        await bench.write(attached, 0, ONES)
        await engine.take(S, (A,))
        await bench.write(attached, 0, TWOS)
        await bench.write(attached, SIZE - len(TWOS), TWOS)
        for _ in range(2):
            begun = await parts.begin_part(T, A, bench.pool.id, SIZE)
            assert (begun.snapshot, begun.size_bytes, begun.complete) == (T, SIZE, False)
        everything = Extent(offset=0, length=SIZE)
        with pytest.raises(Refused):
            await parts.offer_part(T, A, "127.0.0.1")
        cut = await parts.digest_part(S, A, everything, len(ONES))
        mine = await parts.digest_part(T, A, everything, len(ONES))
        other = [n for n, (a, b) in enumerate(zip(cut.hashes, mine.hashes, strict=True)) if a != b]
        assert other == [0, SIZE // len(ONES) - 1]
        assert cut.hashes[-1] == ""
        lacks = tuple(Extent(offset=n * len(ONES), length=len(ONES)) for n in other)
        offered = await parts.offer_part(S, A, "127.0.0.1")
        assert (offered.host, offered.size_bytes) == ("127.0.0.1", SIZE)
        await parts.fill_part(T, A, offered, lacks)
        mine = await parts.digest_part(T, A, everything, len(ONES))
        assert mine.hashes == cut.hashes
        await bench.reopen()
        parts = parts_of(bench)
        assert [r.complete for r in await snapshots_of(bench).snapshots(T)] == [False]
        for _ in range(2):
            assert (await parts.complete_part(T, A)).complete
        with pytest.raises(Refused):
            await parts.fill_part(T, A, offered, lacks)
        for _ in range(2):
            await parts.drop_part(T, A)
        assert await snapshots_of(bench).snapshots(T) == ()
        assert [r.volume for r in await snapshots_of(bench).snapshots(S)] == [A]

    async def test_a_part_may_begin_with_nothing(self, bench: EngineBench) -> None:
        """A node that has no replica of the volume."""
        parts = parts_of(bench)
        await parts.begin_part(S, A, bench.pool.id, SIZE)
        found = await parts.digest_part(S, A, Extent(offset=0, length=SIZE), SIZE)
        assert found.hashes == ("",)
        await parts.complete_part(S, A)
        await make(bench, B, source=A, snapshot=S)
        assert await bench.read(await attach(bench, B, 1), 0, len(ONES)) == bytes(len(ONES))


def parts_of(bench: EngineBench) -> SnapshotCopies:
    """The engine, if it makes parts of snapshots alike."""
    if not isinstance(bench.engine, SnapshotCopies):
        pytest.skip("this engine keeps snapshots on one node")
    return bench.engine


def snapshots_of(bench: EngineBench) -> Snapshots:
    """The engine, if it takes snapshots."""
    if not isinstance(bench.engine, Snapshots):
        pytest.skip("this engine takes no snapshots")
    return bench.engine
