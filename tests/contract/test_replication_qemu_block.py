"""Replication by nbdkit and QEMU's storage daemon: three engines of one machine as the nodes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from trivet.contracts.driver import DriverContext, NoConfig
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import AttachedVolume, PoolOnNode
from trivet.contracts.storage.pool import PoolMember
from trivet.plugins.storage import nbdkit, qsd
from trivet.plugins.storage.engine import QemuBlockEngine
from trivet.plugins.storage.node_process import Daemon, daemons
from trivet.testing.suites.replication import NODES, ReplicationSuite, V
from trivet.testing.suites.replication_copies import CopyingSuite

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
