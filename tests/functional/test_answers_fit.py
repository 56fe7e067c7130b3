"""What a message can't carry is told, or paged, and never left to a caller's deadline."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from trivet.contracts.endpoint import CreateRequest, Endpoint, GetRequest, ListRequest, NewMeta, Ref
from trivet.contracts.errors import INTERNAL, MALFORMED, REPLY_TOO_LARGE, TrivetError
from trivet.contracts.model import Model
from trivet.contracts.storage.endpoints.volumes import CRUD
from trivet.contracts.storage.volume import VOLUME, VolumeSpec
from trivet.runtime import call as calls
from trivet.runtime.call import MAX_REPLY_BYTES, Call
from trivet.runtime.crud import Hooks, admit_anything, serve_crud
from trivet.runtime.service import Service
from trivet.testing.harness import Harness

PROJECT = "lab"
COUNT = 40


async def bootstrap(service: Service) -> None:
    """Volumes, as they are stored."""
    service.collection(VOLUME)
    serve_crud(service, CRUD, Hooks(admit_anything))


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[Harness]:
    async with Harness(tmp_path) as made:
        await made.start("storage", bootstrap)
        for n in range(COUNT):
            meta = NewMeta(name=f"v{n:03}", project=PROJECT, labels={"pad": "x" * 60})
            request = CreateRequest[VolumeSpec](meta=meta, spec=VolumeSpec(size_gib=1))
            await made.call(CRUD.create, request)
        yield made


async def refusal(call: Any) -> TrivetError:
    with pytest.raises(TrivetError) as error:
        await call
    return error.value


async def test_a_list_that_is_too_large_comes_in_smaller_pages(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MAX_REPLY_BYTES", 8_000)
    names: list[str] = []
    cursor, pages = None, 0
    while pages == 0 or cursor:
        request = ListRequest(project=PROJECT, limit=1000, cursor=cursor)
        page = await harness.call(CRUD.list, request)
        assert len(page.model_dump_json()) <= 8_000
        names += [item.meta.name for item in page.items]
        cursor, pages = page.cursor, pages + 1
    assert names == [f"v{n:03}" for n in range(COUNT)]
    assert pages > 2


async def test_one_that_can_not_be_made_smaller_has_its_code(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MAX_REPLY_BYTES", 100)
    for asked in (
        harness.call(CRUD.get, GetRequest(project=PROJECT, name="v001")),
        harness.call(CRUD.list, ListRequest(project=PROJECT)),
    ):
        error = await refusal(asked)
        assert error.code is REPLY_TOO_LARGE
        assert "100" in (error.hint or "")


class Text(Model):
    """A text."""

    text: str


TALK = Endpoint(
    service="storage",
    op="volume.talk",
    request=Ref,
    response=Text,
    policy=CRUD.get.policy,
    summary="Say a lot.",
    timeout_s=2.0,
)


async def test_the_bound_is_what_the_bus_carries(harness: Harness) -> None:
    async def talk(request: Any, call: Call) -> Text:
        return Text(text="x" * int(request.name))

    await harness.fake(TALK, talk)
    overhead = len(Text(text="").model_dump_json())
    fits = await harness.call(TALK, Ref(name=str(MAX_REPLY_BYTES - overhead)))
    assert len(fits.text) == MAX_REPLY_BYTES - overhead
    error = await refusal(harness.call(TALK, Ref(name=str(MAX_REPLY_BYTES))))
    assert error.code is REPLY_TOO_LARGE


async def test_an_answer_that_can_not_be_read_is_an_error_with_a_code(harness: Harness) -> None:
    async def answer(request: Any, call: Call) -> Model:
        return Ref(name="not-a-text")

    await harness.fake(TALK, answer)
    error = await refusal(harness.call(TALK, Ref(name="any")))
    assert (error.code, error.kind) == (INTERNAL, "fatal")


async def test_who_sends_a_thousand_wrong_fields_learns_of_the_first(harness: Harness) -> None:
    bus, subject = harness._bus, CRUD.get.subject()
    wrong = "{" + ",".join(f'"{"k" * 500}{n}":1' for n in range(1000)) + "}"
    reply = await bus.request(subject, wrong.encode(), timeout_s=5)
    assert len(reply) < 50_000
    error = calls.ErrorBody.model_validate_json(reply[1:])
    assert error.code == MALFORMED.value
    assert len(error.errors) == calls.FIELDS_TOLD
