"""The fake volume engine keeps the law for volume engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from trivet.contracts.driver import DriverContext
from trivet.contracts.model import GIB, ResourceId
from trivet.contracts.storage.engine import AttachedVolume, PoolOnNode
from trivet.contracts.storage.pool import PoolMember
from trivet.testing.fakes.volume_engine import FakeEngineConfig, FakeVolumeEngine
from trivet.testing.suites.volume_engine import VolumeEngineSuite


class FakeBench:
    pool = PoolOnNode(
        id=ResourceId("pool-0123456789abcdef"),
        name="p",
        member=PoolMember(node="n1", file_gib=1),
    )

    def __init__(self, folder: Path) -> None:
        self._context = DriverContext("n1", folder, folder)

    async def start(self) -> None:
        self.engine = FakeVolumeEngine(self._context, FakeEngineConfig(pool_bytes=GIB))
        await self.engine.open()
        await self.engine.open_pool(self.pool)

    async def reopen(self) -> None:
        await self.engine.close()
        await self.start()

    async def write(self, attached: AttachedVolume, offset: int, data: bytes) -> None:
        self.engine.write(attached, offset, data)

    async def read(self, attached: AttachedVolume, offset: int, length: int) -> bytes:
        return self.engine.read(attached, offset, length)

    async def kill_server(self, volume: ResourceId) -> None:
        servers = self.engine.machine.servers
        for socket in [s for s, (v, _) in servers.items() if v == volume]:
            del servers[socket]

    async def kill_graph(self, volume: ResourceId) -> None:
        spec, _ = self.engine.machine.graphs[volume]
        self.engine.machine.graphs[volume] = (spec, False)


@pytest.fixture
async def bench(tmp_path: Path) -> FakeBench:
    bench = FakeBench(tmp_path)
    await bench.start()
    return bench


class TestFakeVolumeEngine(VolumeEngineSuite):
    """The suite, on the fake."""
