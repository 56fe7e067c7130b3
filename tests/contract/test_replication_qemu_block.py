"""Replication by nbdkit and QEMU's storage daemon: three engines of one machine as the nodes."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from trivet.contracts.driver import DriverContext, NoConfig
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import AttachedVolume, PoolOnNode
from trivet.contracts.storage.pool import PoolMember
from trivet.contracts.storage.volume import Missing
from trivet.plugins.storage import nbdkit, qsd
from trivet.plugins.storage.engine import QemuBlockEngine
from trivet.plugins.storage.node_process import Daemon, daemons
from trivet.testing.suites.replication import (
    FAILED,
    N1,
    N2,
    NODES,
    READS,
    SIZE,
    ReplicationSuite,
    V,
    attach,
    has,
    serve,
    until,
)
from trivet.testing.suites.replication_copies import CopyingSuite, copied

PAGE = 4096
pytestmark = pytest.mark.root


def uri(attached: AttachedVolume) -> str:
    return f"nbd+unix:///{attached.export}?socket={attached.socket}"


class RealCluster:
    pool = ResourceId("pool-0123456789abcdef")

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._engines: dict[str, QemuBlockEngine] = {}

    async def start(self, node: str) -> None:
        state, run = self._folder / node / "s", self._folder / node / "r"
        for folder in (state, run, self._folder / node / "pool"):
            folder.mkdir(parents=True, exist_ok=True)
        engine = QemuBlockEngine(DriverContext(node, state, run), NoConfig())
        await engine.open()
        member = PoolMember(node=node, path=str(self._folder / node / "pool"))
        await engine.open_pool(PoolOnNode(id=self.pool, name="p", member=member))
        self._engines[node] = engine

    def engine(self, node: str) -> QemuBlockEngine:
        return self._engines[node]

    def address(self, node: str) -> str:
        return f"127.0.0.{NODES.index(node) + 1}"

    async def reopen(self, node: str) -> None:
        await self._engines[node].close()
        await self.start(node)

    async def write(self, attached: AttachedVolume, offset: int, data: bytes) -> None:
        await self.io(attached, f"write -P {data[0]} {offset} {len(data)}")

    async def read(self, attached: AttachedVolume, offset: int, length: int) -> bytes:
        """All is read, and nothing but reads is asked: qemu-io would flush in the end."""
        return (await self._run("nbdcopy", "--no-extents", uri(attached), "-"))[offset:][:length]

    async def io(self, attached: AttachedVolume, *acts: str) -> str:
        chosen = [part for act in acts for part in ("-c", act)]
        said = (await self._run("qemu-io", "-f", "raw", *chosen, uri(attached))).decode()
        if "failed" in said:
            raise OSError(said)
        return said

    async def _run(self, *argv: str) -> bytes:
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            said = (await process.communicate())[0]
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            raise OSError(said.decode(errors="replace"))
        return said

    async def kept(self, node: str, offset: int, length: int) -> bytes:
        with self.file(node).open("rb") as file:
            return os.pread(file.fileno(), length, offset)

    def file(self, node: str) -> Path:
        (found,) = (self._folder / node / "pool").rglob(f"{V}.raw")
        return found

    def servers(self, node: str) -> list[Daemon]:
        return list(daemons(nbdkit.PROGRAM, self._folder / node))

    async def kill_servers(self, node: str) -> None:
        for daemon in self.servers(node):
            os.kill(daemon.pid, signal.SIGKILL)
        for _ in range(1000):
            if not self.servers(node):
                break
            await asyncio.sleep(0.005)

    async def kill_graph(self) -> None:
        for daemon in daemons(qsd.PROGRAM, self._folder / N1):
            os.kill(daemon.pid, signal.SIGKILL)

    async def hang(self, node: str) -> None:
        for daemon in self.servers(node):
            os.kill(daemon.pid, signal.SIGSTOP)

    async def wake(self, node: str) -> None:
        for daemon in self.servers(node):
            os.kill(daemon.pid, signal.SIGCONT)

    async def clean(self) -> None:
        for node, engine in self._engines.items():
            await self.wake(node)
            for attached in await engine.attached():
                await engine.detach(attached.volume)
        for node, engine in self._engines.items():
            for record in await engine.replicas():
                await engine.end_serving(record.volume, 10**6)
                await engine.remove(record.volume)
            await engine.close_pool(self.pool, destroy=True)
            await engine.close()
            assert not self.servers(node)
        assert not list(daemons(qsd.PROGRAM, self._folder))
        assert [p for p in self._folder.rglob("*") if not p.is_dir()] == []


@pytest.fixture
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RealCluster]:
    cluster = RealCluster(tmp_path_factory.mktemp("c"))
    for node in NODES:
        await cluster.start(node)
    try:
        yield cluster
    finally:
        await cluster.clean()


class TestQemuBlockReplication(ReplicationSuite):
    """The suite, on the real thing."""


class TestQemuBlockCopying(CopyingSuite):
    """The suite of copies, on the real thing."""

    async def test_nothing_acknowledged_is_lost_while_members_come_and_go(
        self, cluster: RealCluster
    ) -> None:
        """A writer numbers its writes, and repeats one that fails, as a guest does. Meanwhile
        replicas are killed and hung, dropped, brought back by what changed, and read again."""
        there = await attach(cluster, N1, N2)
        engine = cluster.engine(N1)
        with Writer(there) as writer:
            for node in (N2, N1, N2, N1):
                await until(writer.has_written_more)
                await engine.checkpoint(V)
                await until(writer.has_written_more)
                if node == N1:
                    await cluster.hang(node)
                    await engine.break_off(V, node)
                    await cluster.wake(node)
                else:
                    await cluster.kill_servers(node)
                await until(partial(has, cluster, {N1: READS, N2: READS} | {node: FAILED}))
                await engine.drop_member(V, node)
                await until(writer.has_written_more)
                await engine.admit(V, await serve(cluster, node))
                await engine.copy(V, node, Missing.CHANGES)
                await until(writer.has_written_more)
                await copied(cluster, node)
                await engine.end_copy(V, node)
                await engine.promote(V, node)
        assert writer.failed >= 4, "no replica was missed"
        one, other = [await cluster.kept(node, 0, SIZE) for node in (N1, N2)]
        assert one == other
        for block, number in writer.last.items():
            assert one[block * PAGE : block * PAGE + 8] == number.to_bytes(8, "big")


class Writer:
    """Writes numbered blocks of an attached volume as fast as they are answered."""

    def __init__(self, attached: AttachedVolume) -> None:
        self.last: dict[int, int] = {}
        self.failed = 0
        self._seen = 0
        self._stop = threading.Event()
        self._disk = dial(attached)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._disk.close()

    async def has_written_more(self) -> bool:
        """Whether more was written since it was last true."""
        now = len(self.last) + sum(self.last.values())
        more = now != self._seen
        self._seen = now
        return more

    def _run(self) -> None:
        chosen = random.Random(1)
        for number in itertools.count(1):
            block = chosen.randrange(SIZE // PAGE)
            while not self._write(block * PAGE, number.to_bytes(8, "big").ljust(PAGE, b"-")):
                self.failed += 1
                if self._stop.wait(0.01):
                    return
            self.last[block] = number
            if self._stop.is_set():
                return

    def _write(self, offset: int, data: bytes) -> bool:
        head = struct.pack(">IHHQQI", 0x25609513, 0, 1, 0, offset, len(data))
        self._disk.sendall(head + data)
        return self._disk.recv(16, socket.MSG_WAITALL)[4:8] == bytes(4)


def dial(attached: AttachedVolume) -> socket.socket:
    """An NBD connection to an attached volume, ready for requests."""
    disk = socket.socket(socket.AF_UNIX)
    disk.connect(attached.socket)
    disk.recv(18, socket.MSG_WAITALL)
    name = attached.export.encode()
    go = struct.pack(">I", len(name)) + name + struct.pack(">H", 0)
    disk.sendall(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 7, len(go)) + go)
    while True:
        _, _, kind, length = struct.unpack(">QIII", disk.recv(20, socket.MSG_WAITALL))
        disk.recv(length, socket.MSG_WAITALL)
        if kind == 1:
            return disk
