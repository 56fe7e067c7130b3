"""A storage service among fakes, with one pool, and the words to use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from trivet.contracts.endpoint import CreateRequest, DeleteRequest, EditRequest, GetRequest, NewMeta
from trivet.contracts.errors import TrivetError
from trivet.contracts.model import GIB, NodeName
from trivet.contracts.resource import Phase
from trivet.contracts.storage.endpoints.pools import CRUD as POOLS
from trivet.contracts.storage.endpoints.volume_attach import ENDPOINT as ATTACH
from trivet.contracts.storage.endpoints.volume_attach import AttachRequest
from trivet.contracts.storage.endpoints.volume_detach import ENDPOINT as DETACH
from trivet.contracts.storage.endpoints.volume_detach import DetachRequest
from trivet.contracts.storage.endpoints.volumes import CRUD as VOLUMES
from trivet.contracts.storage.pool import Pool, PoolMember, PoolSpec
from trivet.contracts.storage.volume import Attachment, Volume, VolumeSpec
from trivet.storage.bootstrap import bootstrap
from trivet.testing.fakes import plugin as fakes
from trivet.testing.fakes.volume_machine import MACHINES, FakeMachine
from trivet.testing.harness import Harness

PROJECT = "lab"
NAMES = {"engine": "fake-engine", "inspector": "fake-inspector", "look_s": 0.2}


class Storage:
    """The service, as a caller sees it, and the machine below it."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness

    @property
    def machine(self) -> FakeMachine:
        folder = self.harness.folder / "state" / "storage" / "fake-engine"
        return MACHINES[folder, "n1"]

    async def start(self) -> None:
        await self.harness.start("storage", bootstrap)

    async def pool(self, name: str, **spec: Any) -> Pool:
        members = spec.pop("members", (PoolMember(node="n1", file_gib=10),))
        wanted = PoolSpec(members=members, **spec)
        request = CreateRequest[PoolSpec](meta=NewMeta(name=name), spec=wanted)
        await self.harness.call(POOLS.create, request)
        return await self.show_pool(name)

    async def show_pool(self, name: str) -> Pool:
        found: Pool = await self.harness.call(POOLS.get, GetRequest(name=name, settle_s=10))
        return found

    async def make(self, name: str, **spec: Any) -> Volume:
        await self.ask(name, **spec)
        return await self.show(name)

    async def ask(self, name: str, **spec: Any) -> None:
        """Ask for a volume, and don't wait for it."""
        meta = NewMeta(name=name, project=PROJECT)
        wanted = VolumeSpec(**{"size_gib": 1, **spec})
        await self.harness.call(VOLUMES.create, CreateRequest[VolumeSpec](meta=meta, spec=wanted))

    async def show(self, name: str, settle_s: float = 10) -> Volume:
        request = GetRequest(project=PROJECT, name=name, settle_s=settle_s)
        found: Volume = await self.harness.call(VOLUMES.get, request)
        return found

    async def edit(self, name: str, **spec: Any) -> None:
        await self.harness.call(VOLUMES.edit, EditRequest(project=PROJECT, name=name, spec=spec))

    async def delete(self, name: str) -> None:
        await self.harness.call(VOLUMES.delete, DeleteRequest(project=PROJECT, name=name))

    async def attach(self, name: str, holder: str = "vm/1") -> Attachment:
        request = AttachRequest(project=PROJECT, name=name, holder=holder, node=NodeName("n1"))
        return await self.harness.call(ATTACH, request)

    async def detach(self, name: str, holder: str = "vm/1") -> None:
        await self.harness.call(DETACH, DetachRequest(project=PROJECT, name=name, holder=holder))


async def until(what: str, condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until `condition`, which may be asynchronous, holds."""
    deadline = time.monotonic() + seconds
    while True:
        holds = condition()
        if asyncio.iscoroutine(holds):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)


async def code_of(call: Any) -> Any:
    """The code of the error that a call ends with."""
    with pytest.raises(TrivetError) as error:
        await call
    return error.value.code


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    configs = {"fake-engine": {"pool_bytes": 10 * GIB}}
    async with Harness(tmp_path, plugins=(fakes,), storage=NAMES, configs=configs) as harness:
        made = Storage(harness)
        await made.start()
        assert (await made.pool("p", overcommit=1.0)).status.phase is Phase.READY
        yield made
