"""The storage service among fakes: volumes from create to delete, attached by one holder."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from trivet.contracts.endpoint import CreateRequest, DeleteRequest, EditRequest, GetRequest, NewMeta
from trivet.contracts.errors import IMMUTABLE, NAME_TAKEN, NOT_FOUND, REFERENCE, TrivetError
from trivet.contracts.model import NodeName
from trivet.contracts.resource import Phase
from trivet.contracts.storage.codes import ATTACHED, NO_SPACE, SHRINK, TOO_FEW_NODES
from trivet.contracts.storage.endpoints.pools import CRUD as POOLS
from trivet.contracts.storage.endpoints.volume_attach import ENDPOINT as ATTACH
from trivet.contracts.storage.endpoints.volume_attach import AttachRequest
from trivet.contracts.storage.endpoints.volume_detach import ENDPOINT as DETACH
from trivet.contracts.storage.endpoints.volume_detach import DetachRequest
from trivet.contracts.storage.endpoints.volumes import CRUD as VOLUMES
from trivet.contracts.storage.pool import PoolMember, PoolSpec
from trivet.contracts.storage.volume import Attachment, Volume, VolumeSource, VolumeSpec
from trivet.storage.bootstrap import bootstrap
from trivet.testing.fakes import plugin as fakes
from trivet.testing.harness import Harness

PROJECT = "lab"
NAMES = {"engine": "fake-engine", "inspector": "fake-inspector"}


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with Harness(tmp_path, plugins=(fakes,), storage=NAMES) as made:
        await made.start("storage", bootstrap)
        spec = PoolSpec(members=(PoolMember(node="n1", file_gib=10),), overcommit=1.0)
        await made.call(POOLS.create, CreateRequest[PoolSpec](meta=NewMeta(name="p"), spec=spec))
        pool = await made.call(POOLS.get, GetRequest(name="p", settle_s=10))
        assert pool.status.phase is Phase.READY, pool
        yield made


async def make(harness: Harness, name: str, **spec: Any) -> Volume:
    meta = NewMeta(name=name, project=PROJECT)
    request = CreateRequest[VolumeSpec](meta=meta, spec=VolumeSpec(**{"size_gib": 1, **spec}))
    await harness.call(VOLUMES.create, request)
    return await show(harness, name)


async def show(harness: Harness, name: str) -> Volume:
    request = GetRequest(project=PROJECT, name=name, settle_s=10)
    found: Volume = await harness.call(VOLUMES.get, request)
    return found


async def attach(harness: Harness, name: str, holder: str = "vm/1") -> Attachment:
    request = AttachRequest(project=PROJECT, name=name, holder=holder, node=NodeName("n1"))
    return await harness.call(ATTACH, request)


async def detach(harness: Harness, name: str, holder: str = "vm/1") -> None:
    await harness.call(DETACH, DetachRequest(project=PROJECT, name=name, holder=holder))


async def code_of(call: Any) -> Any:
    with pytest.raises(TrivetError) as error:
        await call
    return error.value.code


async def gone(harness: Harness, name: str) -> bool:
    await harness.call(VOLUMES.delete, DeleteRequest(project=PROJECT, name=name))
    return await code_of(show(harness, name)) is NOT_FOUND


async def test_a_volume_is_made_attached_grown_and_deleted(harness: Harness) -> None:
    volume = await make(harness, "data")
    assert volume.status.phase is Phase.READY
    assert [(r.node, r.state) for r in volume.status.replicas] == [("n1", "in_sync")]
    first = await attach(harness, "data")
    assert (first.epoch, first.holder) == (1, "vm/1")
    assert await attach(harness, "data") == first
    assert await code_of(attach(harness, "data", "vm/2")) is ATTACHED
    await detach(harness, "data")
    await detach(harness, "data")
    assert (await attach(harness, "data", "vm/2")).epoch == 2
    await detach(harness, "data", "vm/2")
    edit = EditRequest(project=PROJECT, name="data", spec={"size_gib": 2})
    await harness.call(VOLUMES.edit, edit)
    assert (await show(harness, "data")).status.size_bytes == 2 * 2**30
    shrink = EditRequest(project=PROJECT, name="data", spec={"size_gib": 1})
    assert await code_of(harness.call(VOLUMES.edit, shrink)) is SHRINK
    assert await gone(harness, "data")


async def test_who_makes_one_may_wait_in_the_same_call_for_it_to_settle(harness: Harness) -> None:
    def asked(name: str, settle_s: float) -> CreateRequest[VolumeSpec]:
        meta = NewMeta(name=name, project=PROJECT)
        return CreateRequest[VolumeSpec](meta=meta, spec=VolumeSpec(size_gib=1), settle_s=settle_s)

    made = await harness.call(VOLUMES.create, asked("a", 10))
    assert made.status.phase is Phase.READY
    assert made == await show(harness, "a")
    made = await harness.call(VOLUMES.create, asked("b", 0))
    assert made.status.phase is Phase.PENDING
    spec = VolumeSpec(size_gib=1, pool="absent")
    meta = NewMeta(name="c", project=PROJECT)
    request = CreateRequest[VolumeSpec](meta=meta, spec=spec, settle_s=0.1)
    with pytest.raises(TrivetError):
        await harness.call(VOLUMES.create, request)


async def test_a_clone_outlives_its_source(harness: Harness) -> None:
    await make(harness, "image")
    clone = await make(harness, "clone", source=VolumeSource(volume="image"))
    assert clone.status.phase is Phase.READY
    assert await gone(harness, "image")
    assert (await attach(harness, "clone")).socket


async def test_what_cannot_be_is_refused(harness: Harness) -> None:
    await make(harness, "data")
    assert await code_of(make(harness, "data")) is NAME_TAKEN
    assert await code_of(make(harness, "big", size_gib=100)) is NO_SPACE
    assert await code_of(make(harness, "two", replicas=2)) is TOO_FEW_NODES
    assert await code_of(make(harness, "pooled", pool="nowhere")) is REFERENCE
    source = VolumeSource(volume="nothing")
    assert await code_of(make(harness, "copy", source=source)) is REFERENCE


async def test_space_is_never_promised_twice(harness: Harness) -> None:
    """Twenty volumes of a gigabyte at once on ten: ten get their place, whoever was first."""
    meta = [NewMeta(name=f"v{n}", project=PROJECT) for n in range(20)]
    requests = [CreateRequest[VolumeSpec](meta=m, spec=VolumeSpec(size_gib=1)) for m in meta]
    calls = (harness.call(VOLUMES.create, request) for request in requests)
    await asyncio.gather(*calls, return_exceptions=True)
    pool = await harness.call(POOLS.get, GetRequest(name="p"))
    ready = 0
    for n in range(10):
        ready += (await show(harness, f"v{n}")).status.phase is Phase.READY
    assert ready == 10
    pool = await harness.call(POOLS.get, GetRequest(name="p", settle_s=5))
    assert pool.status.claimed_bytes <= 10 * 2**30


async def test_of_two_that_attach_one_wins(harness: Harness) -> None:
    await make(harness, "data")
    holders = [f"vm/{n}" for n in range(8)]
    answers = await asyncio.gather(
        *(attach(harness, "data", holder) for holder in holders), return_exceptions=True
    )
    won = [a for a in answers if isinstance(a, Attachment)]
    assert len(won) == 1
    assert {a.code for a in answers if isinstance(a, TrivetError)} == {ATTACHED}


async def test_a_crash_in_the_middle_changes_nothing(harness: Harness) -> None:
    """The service is ended while a volume is made and attached, and begun again."""
    meta = NewMeta(name="data", project=PROJECT)
    request = CreateRequest[VolumeSpec](meta=meta, spec=VolumeSpec(size_gib=1))
    await harness.call(VOLUMES.create, request)
    await harness.crash("storage")
    await harness.start("storage", bootstrap)
    assert (await show(harness, "data")).status.phase is Phase.READY
    first = await attach(harness, "data")
    await harness.crash("storage")
    await harness.start("storage", bootstrap)
    again = await attach(harness, "data")
    assert again.epoch in (first.epoch, first.epoch + 1)
    await detach(harness, "data")
    assert await gone(harness, "data")


async def test_a_pool_grows_and_never_shrinks(harness: Harness) -> None:
    def asked(size: int) -> EditRequest:
        members = [{"node": "n1", "file_gib": size}]
        return EditRequest(name="p", spec={"members": members, "overcommit": 1.0})

    await harness.call(POOLS.edit, asked(12))

    async def grown() -> int:
        pool = await harness.call(POOLS.get, GetRequest(name="p"))
        return int(sum(u.size_bytes for u in pool.status.usage))

    before = await grown()
    async with asyncio.timeout(60):
        while await grown() == before:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert await code_of(harness.call(POOLS.edit, asked(11))) is SHRINK
    await make(harness, "lies-there")
    gone_member = EditRequest(name="p", spec={"members": [{"node": "n2", "file_gib": 20}]})
    assert await code_of(harness.call(POOLS.edit, gone_member)) is IMMUTABLE
