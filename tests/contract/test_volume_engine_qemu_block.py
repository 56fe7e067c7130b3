"""The engine on nbdkit and QEMU's storage daemon, with a real pool on a loop device."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from trivet.contracts.driver import DriverContext, NoConfig
from trivet.contracts.errors import NOT_SUPPORTED, Refused, Retry, TrivetError
from trivet.contracts.model import MIB, ResourceId
from trivet.contracts.storage.codes import DISK_NOT_BLANK
from trivet.contracts.storage.engine import (
    AttachedVolume,
    AttachSpec,
    PoolOnNode,
    ReplicaSpec,
)
from trivet.contracts.storage.pool import PoolMember
from trivet.contracts.storage.volume import Qos
from trivet.plugins.storage import nbdkit, qsd, snapshot_file
from trivet.plugins.storage.engine import QemuBlockEngine
from trivet.plugins.storage.node_process import daemons
from trivet.plugins.storage.replica_file import clone
from trivet.storage.domain.pools import is_full
from trivet.testing.suites.volume_engine import SIZE, A, B, S, VolumeEngineSuite, attach, make

WRITER = """
import itertools, socket, struct, sys

def dial(path, export):
    disk = socket.socket(socket.AF_UNIX)
    disk.connect(path)
    disk.recv(18)
    disk.sendall(struct.pack(">I", 3))  # fixed newstyle, no zeroes
    name = export.encode()
    go = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
    disk.sendall(b"IHAVEOPT" + struct.pack(">II", 7, len(go)) + go)
    while True:
        _, _, kind, length = struct.unpack(">QIII", disk.recv(20, socket.MSG_WAITALL))
        disk.recv(length, socket.MSG_WAITALL)
        if kind == 1:
            return disk

def write(disk, data):
    disk.sendall(struct.pack(">IHHQQI", 0x25609513, 0, 1, 0, 0, len(data)) + data)
    assert disk.recv(16, socket.MSG_WAITALL)[4:8] == bytes(4)

disks = [dial(*address.split()) for address in sys.argv[1:]]
for n in itertools.count(1):
    for disk in disks:
        write(disk, n.to_bytes(8, "big").ljust(512, b"-"))
"""
"""Numbers its writes: each into the first disk, then into the second, once that is answered."""

pytestmark = pytest.mark.root


def command(*argv: str, data: bytes | None = None) -> bytes:
    done = subprocess.run(argv, input=data, capture_output=True, timeout=60, check=False)
    if done.returncode:
        raise OSError(f"{argv}: {done.stdout.decode()} {done.stderr.decode()}")
    return done.stdout


def uri(socket: str, export: str) -> str:
    return f"nbd+unix:///{export}?socket={socket}"


class RealBench:
    def __init__(self, folder: Path, member: PoolMember, devices: tuple[str, ...] = ()) -> None:
        (folder / "s").mkdir(exist_ok=True)
        (folder / "r").mkdir(exist_ok=True)
        self.context = DriverContext("n1", folder / "s", folder / "r")
        self.pool = PoolOnNode(
            id=ResourceId("pool-0123456789abcdef"), name="p", member=member, devices=devices
        )

    async def start(self) -> None:
        self.engine = QemuBlockEngine(self.context, NoConfig())
        await self.engine.open()
        await self.engine.open_pool(self.pool)

    async def reopen(self) -> None:
        await self.engine.close()
        await self.start()

    async def write(self, attached: AttachedVolume, offset: int, data: bytes) -> None:
        assert len(set(data)) == 1
        act = f"write -P {data[0]} {offset} {len(data)}"
        self.io(attached, act, "flush")

    async def read(self, attached: AttachedVolume, offset: int, length: int) -> bytes:
        file = self.context.run_dir / "read"
        file.unlink(missing_ok=True)
        command("nbdcopy", uri(attached.socket, attached.export), str(file))
        return file.read_bytes()[offset : offset + length]

    def io(self, attached: AttachedVolume, *acts: str) -> str:
        chosen = [part for act in acts for part in ("-c", act)]
        target = uri(attached.socket, attached.export)
        said = command("qemu-io", "-d", "unmap", "-f", "raw", *chosen, target).decode()
        if "failed" in said:
            raise OSError(said)
        return said

    async def kill_server(self, volume: ResourceId) -> None:
        self._kill(nbdkit.PROGRAM)

    async def kill_graph(self, volume: ResourceId) -> None:
        self._kill(qsd.PROGRAM)

    def _kill(self, program: str) -> None:
        for daemon in daemons(program, self.context.run_dir):
            os.kill(daemon.pid, signal.SIGKILL)
        while list(daemons(program, self.context.run_dir)):
            pass

    async def clean(self) -> None:
        """Remove all, by the engine's own means, and see that nothing is left."""
        for attached in await self.engine.attached():
            await self.engine.detach(attached.volume)
        for kept in await self.engine.snapshots():
            await self.engine.drop(kept.snapshot)
        for record in await self.engine.replicas():
            await self.engine.end_serving(record.volume, 10**6)
            await self.engine.remove(record.volume)
        await self.engine.close_pool(self.pool.id, destroy=True)
        await self.engine.close()
        left = [
            p
            for folder in (self.context.state_dir, self.context.run_dir)
            for p in folder.rglob("*")
            if not p.is_dir() and p.name != "read"
        ]
        assert left == []
        assert not list(daemons("nbdkit", self.context.run_dir))
        assert not list(daemons(qsd.PROGRAM, self.context.run_dir))
        assert str(self.context.state_dir) not in command("findmnt", "-n").decode()
        assert str(self.context.state_dir) not in command("losetup", "--list").decode()


@pytest.fixture
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealBench]:
    bench = RealBench(tmp_path_factory.mktemp("e"), PoolMember(node="n1", file_gib=1))
    await bench.start()
    try:
        yield bench
    finally:
        await bench.clean()


class TestQemuBlockEngine(VolumeEngineSuite):
    """The suite, on the real thing."""

    async def test_probe_says_it_can(self) -> None:
        assert (await QemuBlockEngine.probe()).usable

    async def test_another_export_name_is_refused(self, bench: RealBench) -> None:
        await make(bench, A)
        served = await bench.engine.serve(A, 5)
        assert (
            "export-size: 16777216"
            in command("nbdinfo", uri(served.socket, served.export)).decode()
        )
        for wrong in (f"{A}.e4", f"{A}.e6", "", str(A)):
            with pytest.raises(OSError):  # noqa: PT011
                command("nbdinfo", uri(served.socket, wrong))

    async def test_volumes_are_cut_at_one_point(
        self, bench: RealBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A writer that numbers its writes, first into A then into B: in no snapshot may B have
        a number that A does not have."""

        def slow(source: int, target: int) -> bool:
            time.sleep(0.05)  # time enough to write between one clone and the next
            return clone(source, target)

        monkeypatch.setattr(snapshot_file, "clone", slow)
        for volume in (A, B):
            await make(bench, volume)
        one, two = await attach(bench, A, 1), await attach(bench, B, 1)
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, f"{one.socket} {one.export}", f"{two.socket} {two.export}"
        )
        try:
            seen = set()
            for n in range(8):
                snapshot = ResourceId(f"snapshot-{n:016x}")
                await bench.engine.take(snapshot, (A, B))
                folder = bench.context.state_dir / "pools" / bench.pool.id / "snapshots"
                files = [folder / f"{snapshot}.{v}.raw" for v in (A, B)]
                first, second = (int.from_bytes(f.read_bytes()[:8], "big") for f in files)
                assert first - 1 <= second <= first
                seen.add(first)
                await asyncio.sleep(0.05)
        finally:
            writer.kill()
            await writer.wait()
        assert len(seen) > 4, "the writer went on between the snapshots"

    async def test_bounds_hold(self, bench: RealBench) -> None:
        """Of many requests at fifty a second none comes early: the only figure here is a least
        one, which no load of the machine can change."""
        await make(bench, A)
        attached = await attach(bench, A, 1)
        await bench.engine.limit(A, Qos(iops=50))
        began = time.monotonic()
        bench.io(attached, *(f"write {n * 4096} 4k" for n in range(100)))
        assert time.monotonic() - began > 1.0

    async def test_a_preallocated_replica_keeps_its_space(self, bench: RealBench) -> None:
        """Through discards, zeroes and snapshots gone back to; a clone has its own at once."""
        await make(bench, A, thin=False)
        served = await bench.engine.serve(A, 1)
        spec = AttachSpec(volume=A, epoch=1, size_bytes=SIZE, replicas=(served,), thin=False)
        attached = await bench.engine.attach(spec)
        bench.io(attached, "write -P 3 0 8M", "discard 0 4M", "write -z -u 4M 4M", "flush")
        (record,) = await bench.engine.replicas(A)
        assert record.used_bytes >= SIZE
        await make(bench, B, thin=False, source=A)
        command("sync", "-f", str(bench.context.state_dir / "pools" / bench.pool.id))
        before = (await bench.engine.open_pool(bench.pool)).used_bytes
        clone = (await bench.engine.replicas(B))[0]
        assert clone.used_bytes >= SIZE
        bench.io(await attach(bench, B, 1), "write -P 4 0 16M", "flush")
        after = (await bench.engine.open_pool(bench.pool)).used_bytes
        assert after - before < MIB

    async def test_a_pool_that_was_unmounted_is_mounted_again(self, bench: RealBench) -> None:
        await make(bench, A)
        command("umount", str(bench.context.state_dir / "pools" / bench.pool.id))
        assert (await bench.engine.open_pool(bench.pool)).reflink
        assert (await attach(bench, A, 1)).healthy

    async def test_servers_run_on_when_an_engine_died_while_they_were_stopped(
        self, bench: RealBench
    ) -> None:
        await make(bench, A)
        attached = await attach(bench, A, 1)
        for daemon in daemons(nbdkit.PROGRAM, bench.context.run_dir):
            os.kill(daemon.pid, signal.SIGSTOP)
        await bench.reopen()
        await bench.write(attached, 0, b"\x05" * 4096)

    async def test_a_snapshot_that_takes_too_long_is_none_and_stops_nobody(
        self, bench: RealBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await make(bench, A)
        attached = await attach(bench, A, 1)
        monkeypatch.setattr(snapshot_file, "FREEZE_S", 0.05)

        def slow(source: int, target: int) -> bool:
            time.sleep(0.3)
            return clone(source, target)

        monkeypatch.setattr(snapshot_file, "clone", slow)
        with pytest.raises(Retry):
            await bench.engine.take(S, (A,))
        assert await bench.engine.snapshots() == ()
        await bench.write(attached, 0, b"\x05" * 4096)

    async def test_discard_gives_space_back(self, bench: RealBench) -> None:
        await make(bench, A)
        attached = await attach(bench, A, 1)
        bench.io(attached, "write -P 3 0 8M", "flush")
        (full,) = await bench.engine.replicas()
        bench.io(attached, "discard 0 8M", "flush")
        (empty,) = await bench.engine.replicas()
        assert full.used_bytes >= 8 * MIB > MIB > empty.used_bytes

    async def test_linked_clones_share_blocks_and_full_ones_do_not(self, bench: RealBench) -> None:
        await make(bench, A)
        bench.io(await attach(bench, A, 1), "write -P 3 0 16M", "flush")
        command("sync", "-f", str(bench.context.state_dir / "pools" / bench.pool.id))
        before = (await bench.engine.open_pool(bench.pool)).used_bytes
        await make(bench, B, source=A, linked=True)
        linked = (await bench.engine.open_pool(bench.pool)).used_bytes
        await bench.engine.remove(B)
        await make(bench, B, source=A, linked=False)
        full = (await bench.engine.open_pool(bench.pool)).used_bytes
        assert linked - before < MIB
        assert full - before > 15 * MIB

    async def test_a_cut_create_is_begun_anew(self, bench: RealBench) -> None:
        await make(bench, A)
        folder = bench.context.state_dir / "pools" / bench.pool.id / "replicas"
        record = folder / f"{A}.json"
        record.write_text(record.read_text().replace('"complete":true', '"complete":false'))
        (folder / f"{A}.raw").write_bytes(b"half")
        await bench.engine.close_pool(bench.pool.id)
        await bench.reopen()
        assert [r.complete for r in await bench.engine.replicas()] == [False]
        with pytest.raises(TrivetError):
            await bench.engine.serve(A, 1)
        await make(bench, A)
        assert await bench.read(await attach(bench, A, 1), 0, 4096) == bytes(4096)

    async def test_a_pool_is_found_after_a_reboot(self, bench: RealBench) -> None:
        await make(bench, A)
        bench.io(await attach(bench, A, 1), "write -P 9 0 4k", "flush")
        await bench.engine.detach(A)
        await bench.engine.end_serving(A, 2)
        await bench.engine.close_pool(bench.pool.id)
        await bench.reopen()
        assert await bench.read(await attach(bench, A, 2), 0, 4096) == b"\x09" * 4096

    async def test_a_write_that_finds_no_space_says_so_and_can_be_done_again(
        self, bench: RealBench
    ) -> None:
        """The reason reaches the client of the graph, which pauses a guest for that one."""
        await make(bench, A, size_bytes=256 * MIB)
        attached = await attach(bench, A, 1, 256 * MIB)
        usage = await bench.engine.open_pool(bench.pool)
        ballast = bench.context.state_dir / "pools" / bench.pool.id / "ballast"
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, usage.size_bytes - usage.used_bytes - 32 * MIB)
        with pytest.raises(OSError, match="No space left"):
            bench.io(attached, "write -P 7 0 128M", "flush")
        assert is_full(await bench.engine.open_pool(bench.pool))
        ballast.unlink()
        command("sync", "-f", str(ballast.parent))  # XFS gives space back in the background
        for _ in range(500):
            if not is_full(await bench.engine.open_pool(bench.pool)):
                break
            await asyncio.sleep(0.01)
        bench.io(attached, "write -P 7 0 128M", "flush")
        assert "Pattern verification" not in bench.io(attached, "read -P 7 0 128M")


async def test_a_folder_is_a_pool(tmp_path: Path) -> None:
    bench = RealBench(tmp_path, PoolMember(node="n1", path=str(tmp_path / "folder")))
    await bench.start()
    await make(bench, A)
    bench.io(await attach(bench, A, 1), "write -P 9 0 4k", "flush")
    await make(bench, B, source=A)
    assert await bench.read(await attach(bench, B, 1), 0, 4096) == b"\x09" * 4096
    await bench.clean()


async def test_a_member_with_nothing_is_refused(tmp_path: Path) -> None:
    bench = RealBench(tmp_path, PoolMember(node="n1"))
    with pytest.raises(Refused) as refused:
        await bench.start()
    assert refused.value.code is NOT_SUPPORTED


async def test_disks_are_formatted_only_when_blank(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(400 * MIB)
    command("mkfs.ext4", "-q", str(image))
    loop = command("losetup", "--find", "--show", str(image)).decode().strip()
    try:
        bench = RealBench(tmp_path, PoolMember(node="n1", disks=("d",)), (loop,))
        with pytest.raises(Refused) as refused:
            await bench.start()
        assert refused.value.code is DISK_NOT_BLANK
        assert "ext4" in refused.value.detail
        command("wipefs", "-qa", loop)
        await bench.start()
        await make(bench, A)
        await bench.engine.close_pool(bench.pool.id)
        await bench.reopen()
        assert len(await bench.engine.replicas()) == 1
        await bench.clean()
        assert command("wipefs", loop) == b""
    finally:
        command("losetup", "--detach", loop)


async def test_a_pool_is_open_with_the_disks_that_are_there(tmp_path: Path) -> None:
    loops = []
    for name in "ab":
        image = tmp_path / name
        with image.open("wb") as file:
            file.truncate(400 * MIB)
        loops.append(command("losetup", "--find", "--show", str(image)).decode().strip())
    bench = RealBench(tmp_path, PoolMember(node="n1", disks=("a", "b")), tuple(loops))
    whole = bench.pool
    try:
        await bench.start()
        usage = await bench.engine.open_pool(whole)
        assert [d.disk for d in usage.disks] == ["a", "b"]
        assert usage.size_bytes == sum(d.size_bytes for d in usage.disks)
        for volume, disk in ((A, "a"), (B, "b")):
            spec = ReplicaSpec(
                volume=volume, pool=whole.id, size_bytes=16 * MIB, generation=1, disk=disk
            )
            assert (await bench.engine.create(spec)).disk == disk
        # One is pulled: what lies on the other is still there, and what lay on it is not seen.
        without = whole.model_copy(update={"devices": ("", loops[1])})
        assert [d.disk for d in (await bench.engine.open_pool(without)).disks] == ["b"]
        assert [(r.volume, r.disk) for r in await bench.engine.replicas()] == [(B, "b")]
        assert {d.disk for d in (await bench.engine.open_pool(whole)).disks} == {"a", "b"}
        assert {r.volume for r in await bench.engine.replicas()} == {A, B}
        for volume in (A, B):
            await bench.engine.remove(volume)
        bench.pool = whole
        await bench.clean()
    finally:
        for folder in (tmp_path / "s/pools").glob("pool-*"):
            if folder.is_mount():  # the test failed before it was taken down
                command("umount", str(folder))
        for loop in loops:
            command("losetup", "--detach", loop)


async def test_a_disk_that_failed_and_is_well_again_is_mounted_anew(tmp_path: Path) -> None:
    """Its file system has shut itself down, and would answer with errors for ever."""
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(400 * MIB)
    loop = command("losetup", "--find", "--show", str(image)).decode().strip()
    bench = RealBench(tmp_path, PoolMember(node="n1", disks=("d",)), (loop,))
    folder = tmp_path / f"s/pools/{bench.pool.id}-d"
    try:
        await bench.start()
        await make(bench, A)
        command("xfs_io", "-x", "-c", "shutdown -f", str(folder))
        with pytest.raises(OSError, match="error"):
            list(folder.iterdir())
        await bench.engine.close()
        # Not in the first look: what is mounted of it is let go of then.
        with suppress(Retry):
            await bench.start()
        await bench.engine.close()
        await bench.start()
        assert [r.volume for r in await bench.engine.replicas()] == [A]
        await bench.engine.remove(A)
        await bench.clean()
    finally:
        if folder.is_mount():  # the test failed before it was taken down
            command("umount", "--lazy", str(folder))
        command("losetup", "--detach", loop)


async def test_a_disk_that_was_away_does_not_bring_back_an_older_replica(tmp_path: Path) -> None:
    """Made again on another disk meanwhile, that one is the replica, whichever is found first."""
    loops = []
    for name in "ab":
        image = tmp_path / name
        with image.open("wb") as file:
            file.truncate(400 * MIB)
        loops.append(command("losetup", "--find", "--show", str(image)).decode().strip())
    bench = RealBench(tmp_path, PoolMember(node="n1", disks=("a", "b")), tuple(loops))
    whole = bench.pool
    try:
        await bench.start()
        await make(bench, A, disk="b")
        bench.pool = whole.model_copy(update={"devices": (loops[0], "")})
        await bench.reopen()
        assert await bench.engine.replicas() == ()
        await make(bench, A, disk="a")
        for _ in range(2):
            bench.pool = whole
            await bench.engine.open_pool(whole)
            assert [r.disk for r in await bench.engine.replicas(A)] == ["a"]
            await bench.reopen()
    finally:
        for folder in (tmp_path / "s/pools").glob("pool-*"):
            if folder.is_mount():
                command("umount", str(folder))
        for loop in loops:
            command("losetup", "--detach", loop)
