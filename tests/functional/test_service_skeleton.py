"""A service on the skeleton: the common operations, events, controllers, a crash in between."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from trivet.contracts.endpoint import (
    CreateRequest,
    DeleteRequest,
    EditRequest,
    GetRequest,
    ListRequest,
    NewMeta,
)
from trivet.contracts.errors import (
    CONFLICT,
    IMMUTABLE,
    INTERNAL,
    MALFORMED,
    NAME_TAKEN,
    NOT_FOUND,
    REVISION,
    TIMEOUT,
    UNAVAILABLE,
    TrivetError,
)
from trivet.contracts.event import CloudEvent
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import OwnerRef, Phase
from trivet.contracts.storage.endpoints.volumes import CRUD
from trivet.contracts.storage.volume import VOLUME, Volume, VolumeSpec
from trivet.runtime.crud import Hooks, immutable, serve_crud
from trivet.runtime.service import Service
from trivet.testing.harness import Harness
from trivet.testing.memory_bus import MemoryBus

PROJECT = "lab"


async def admit(before: Volume | None, after: Volume) -> Volume:
    if before is not None:
        immutable(before.spec, after.spec, "pool")
    if after.meta.labels.get("boom"):
        raise ZeroDivisionError("a bug, with a secret in it")
    return after


Admit = Callable[[Volume | None, Volume], Awaitable[Volume]]


async def bootstrap(service: Service, admit: Admit = admit) -> None:
    """Volumes whose controller makes them ready, and lets go of them when they are deleted."""
    volumes = service.collection(VOLUME)
    serve_crud(service, CRUD, Hooks(admit, finalizers=("test",)))
    woken = asyncio.Event()
    volumes.on_change(lambda key: woken.set())

    async def control() -> None:
        while True:
            woken.clear()
            for volume in volumes.list():
                if volume.meta.deleting_at:
                    await volumes.remove(volume)
                elif volume.status.observed_generation < volume.meta.generation:
                    seen = volume.with_status(
                        phase=Phase.READY, observed_generation=volume.meta.generation
                    )
                    await volumes.write(volume, seen)
            await woken.wait()

    service.controller("volumes", control)


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with Harness(tmp_path) as made:
        await made.start("storage", bootstrap)
        yield made


def new(name: str, **spec: Any) -> CreateRequest[VolumeSpec]:
    return CreateRequest[VolumeSpec](
        meta=NewMeta(name=name, project=PROJECT), spec=VolumeSpec(size_gib=1, **spec)
    )


async def code_of(call: Any) -> Any:
    with pytest.raises(TrivetError) as error:
        await call
    return error.value.code


async def test_create_settles_edits_and_deletes(harness: Harness) -> None:
    made = await harness.call(CRUD.create, new("data"))
    assert (made.status.phase, made.meta.generation) == (Phase.PENDING, 1)
    settled = await harness.call(CRUD.get, GetRequest(project=PROJECT, name="data", settle_s=10))
    assert settled.status.phase is Phase.READY
    patch = EditRequest(project=PROJECT, name="data", spec={"size_gib": 2}, labels={"a": "b"})
    edited = await harness.call(CRUD.edit, patch)
    assert (edited.spec.size_gib, edited.meta.generation, edited.meta.labels) == (2, 2, {"a": "b"})
    await harness.call(CRUD.delete, DeleteRequest(project=PROJECT, name="data"))
    gone = harness.call(CRUD.get, GetRequest(project=PROJECT, name="data", settle_s=10))
    assert await code_of(gone) is NOT_FOUND


async def test_refusals_have_their_codes(harness: Harness) -> None:
    await harness.call(CRUD.create, new("data"))
    assert await code_of(harness.call(CRUD.create, new("data"))) is NAME_TAKEN
    edit = EditRequest(project=PROJECT, name="data", revision=1_000_000, spec={"size_gib": 3})
    assert await code_of(harness.call(CRUD.edit, edit)) is REVISION
    edit = EditRequest(project=PROJECT, name="data", spec={"pool": "p2"})
    assert await code_of(harness.call(CRUD.edit, edit)) is IMMUTABLE
    edit = EditRequest(project=PROJECT, name="data", spec={"size": 3})
    assert await code_of(harness.call(CRUD.edit, edit)) is MALFORMED
    assert await code_of(harness.call(CRUD.get, GetRequest(name="data"))) is MALFORMED
    missing = DeleteRequest(project=PROJECT, name="nothing")
    assert await code_of(harness.call(CRUD.delete, missing)) is NOT_FOUND


async def test_who_has_given_up_does_not_undo_what_was_asked_since(
    tmp_path: Path,
) -> None:
    judging, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(before: Volume | None, after: Volume) -> Volume:
        if after.meta.labels.get("written") == "1" and not judging.is_set():
            judging.set()
            await go_on.wait()
        return after

    def edit(written: str) -> EditRequest:
        return EditRequest(project=PROJECT, name="data", labels={"written": written})

    async with Harness(tmp_path) as harness:
        await harness.start("storage", partial(bootstrap, admit=slowly))
        await harness.call(CRUD.create, new("data"))
        given_up = harness.client.call(CRUD.edit, edit("1"), timeout_s=0.2)
        assert await code_of(given_up) is TIMEOUT
        assert judging.is_set()
        await harness.call(CRUD.edit, edit("1"))
        await harness.call(CRUD.edit, edit("2"))
        go_on.set()
        await harness.stop("storage")  # which lets what is at work finish
        await harness.start("storage", bootstrap)
        found = await harness.call(CRUD.get, GetRequest(project=PROJECT, name="data"))
        assert found.meta.labels == {"written": "2"}


async def test_a_bug_is_answered_without_its_inside(harness: Harness) -> None:
    request = new("data")
    meta = request.meta.model_copy(update={"labels": {"boom": "1"}})
    with pytest.raises(TrivetError) as error:
        await harness.call(CRUD.create, request.model_copy(update={"meta": meta}))
    assert error.value.code is INTERNAL
    assert "secret" not in str(error.value)


async def test_only_services_make_resources_for_others(harness: Harness) -> None:
    owner = OwnerRef(kind="Vm", id=ResourceId("vm-1"), project=PROJECT, name="web")
    request = new("data").model_copy(update={"owner": owner})
    made = await harness.call(CRUD.create, request)
    assert made.meta.owner == owner
    mine = await harness.call(CRUD.list, ListRequest(project=PROJECT, owner="vm-1"))
    assert [v.meta.name for v in mine.items] == ["data"]


async def test_lists_come_in_pages(harness: Harness) -> None:
    for n in range(5):
        await harness.call(CRUD.create, new(f"v{n}"))
    names: list[str] = []
    cursor = None
    for _ in range(3):
        page = await harness.call(CRUD.list, ListRequest(project=PROJECT, limit=2, cursor=cursor))
        names += [v.meta.name for v in page.items]
        cursor = page.cursor
    assert names == [f"v{n}" for n in range(5)]
    assert cursor is None


async def test_of_many_creates_of_one_name_one_wins(harness: Harness) -> None:
    calls = [harness.call(CRUD.create, new("data")) for _ in range(20)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(a, Volume) for a in answers) == 1
    assert {a.code for a in answers if isinstance(a, TrivetError)} == {NAME_TAKEN}


async def test_edits_of_one_resource_are_all_kept(harness: Harness) -> None:
    await harness.call(CRUD.create, new("data"))
    edits = [
        harness.call(CRUD.edit, EditRequest(project=PROJECT, name="data", labels={f"l{n}": "x"}))
        for n in range(5)
    ]
    answers = await asyncio.gather(*edits, return_exceptions=True)
    final = await harness.call(CRUD.get, GetRequest(project=PROJECT, name="data"))
    kept = sum(isinstance(a, Volume) for a in answers)
    assert len(final.meta.labels) == kept
    assert all(a.code is CONFLICT for a in answers if isinstance(a, TrivetError))


async def test_a_crashed_service_goes_on_where_it_stood(harness: Harness) -> None:
    await harness.crash("storage")
    assert await code_of(harness.call(CRUD.create, new("data"))) is UNAVAILABLE
    await harness.start("storage", bootstrap)
    await harness.call(CRUD.create, new("data"))
    await harness.crash("storage")
    await harness.start("storage", bootstrap)
    settled = await harness.call(CRUD.get, GetRequest(project=PROJECT, name="data", settle_s=20))
    assert settled.status.phase is Phase.READY


async def test_events_tell_the_life_of_a_resource_in_order(harness: Harness) -> None:
    bus = MemoryBus(harness.broker)
    await harness.call(CRUD.create, new("data"))
    await harness.call(CRUD.get, GetRequest(project=PROJECT, name="data", settle_s=10))
    await harness.call(CRUD.delete, DeleteRequest(project=PROJECT, name="data"))
    verbs: list[str] = []
    async with asyncio.timeout(60):
        async for message in bus.events("trivet.evt.storage.>", since_seq=1):
            verbs.append(CloudEvent.model_validate_json(message.data).type.split(".")[3])
            if verbs[-1] == "deleted":
                break
    assert verbs == ["created", "phase_changed", "phase_changed", "deleted"]
