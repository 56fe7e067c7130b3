"""The fake volume engine keeps the law for replication."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from trivet.contracts.driver import DriverContext
from trivet.contracts.model import GIB, ResourceId
from trivet.contracts.storage.engine import AttachedVolume, PoolOnNode
from trivet.contracts.storage.pool import PoolMember
from trivet.testing.fakes.volume_engine import FakeEngineConfig, FakeVolumeEngine
from trivet.testing.fakes.volume_replication import Hangs
from trivet.testing.suites.replication import NODES, ReplicationSuite, V
from trivet.testing.suites.replication_copies import CopyingSuite


class FakeCluster:
    pool = ResourceId("pool-0123456789abcdef")

    def __init__(self, folder: Path, copy_blocks: int) -> None:
        self._folder = folder
        self._config = FakeEngineConfig(pool_bytes=GIB, copy_blocks=copy_blocks)
        self._engines: dict[str, FakeVolumeEngine] = {}

    async def start(self, node: str) -> None:
        engine = FakeVolumeEngine(DriverContext(node, self._folder, self._folder), self._config)
        await engine.open()
        member = PoolMember(node=node, file_gib=1)
        await engine.open_pool(PoolOnNode(id=self.pool, name="p", member=member))
        self._engines[node] = engine

    async def reopen(self, node: str) -> None:
        await self._engines[node].close()
        await self.start(node)

    def engine(self, node: str) -> FakeVolumeEngine:
        return self._engines[node]

    def address(self, node: str) -> str:
        return f"192.0.2.{NODES.index(node) + 1}"

    async def write(self, attached: AttachedVolume, offset: int, data: bytes) -> None:
        while True:
            try:
                return self._engines[NODES[0]].write(attached, offset, data)
            except Hangs:
                await asyncio.sleep(0)

    async def read(self, attached: AttachedVolume, offset: int, length: int) -> bytes:
        return self._engines[NODES[0]].read(attached, offset, length)

    async def kept(self, node: str, offset: int, length: int) -> bytes:
        return self._engines[node].machine.replicas[V].read(offset, length)

    async def kill_servers(self, node: str) -> None:
        servers = self._engines[node].machine.servers
        for socket in [s for s, (v, _) in servers.items() if v == V]:
            del servers[socket]
        await self.wake(node)
        self._engines[node].tell_deaths(V)

    async def kill_graph(self) -> None:
        graphs = self._engines[NODES[0]].machine.graphs
        graphs[V] = (graphs[V][0], False)
        self._engines[NODES[0]].tell_deaths(V)

    async def hang(self, node: str) -> None:
        self._engines[node].machine.hung.add(V)

    async def wake(self, node: str) -> None:
        self._engines[node].machine.hung.discard(V)


@pytest.fixture(params=[0, 1])
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> FakeCluster:
    cluster = FakeCluster(tmp_path, request.param)
    for node in NODES:
        await cluster.start(node)
    return cluster


class TestFakeReplication(ReplicationSuite):
    """The suite, on the fake."""


class TestFakeCopying(CopyingSuite):
    """The suite of copies, on the fake."""
