"""What the Python client sends again, and what it leaves to its caller."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from trivet.client import Client
from trivet.client.retries import Unsent, may_repeat, pause_s
from trivet.contracts.compute.vm import VM, Vm, VmSpec, VmStatus
from trivet.contracts.errors import (
    CODES,
    CONFLICT,
    TIMEOUT,
    TOO_MANY,
    UNAVAILABLE,
    Refused,
    Retry,
    TrivetError,
)
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta

META = Meta(
    id=ResourceId("vm-1"), name="web", project="p", created_at=datetime(2026, 1, 1, tzinfo=UTC)
)
WEB = Vm(meta=META, spec=VmSpec(), status=VmStatus()).model_dump_json()
BUSY = Retry(TOO_MANY, "x", retry_after_s=1)
AWAY = Retry(UNAVAILABLE, "x", retry_after_s=1)
LATE = Retry(TIMEOUT, "x", retry_after_s=1)
BROKEN = Retry(UNAVAILABLE, "the connection broke")


@pytest.mark.parametrize(
    ("error", "method", "keyed", "again"),
    [
        (BUSY, "GET", False, True),
        (BUSY, "DELETE", False, True),
        (AWAY, "PATCH", False, True),
        (Unsent(UNAVAILABLE, "x"), "DELETE", False, True),
        (LATE, "GET", False, True),
        (LATE, "POST", True, True),
        (LATE, "POST", False, False),
        (LATE, "PATCH", False, False),
        (LATE, "DELETE", False, False),
        (BROKEN, "GET", False, True),
        (BROKEN, "POST", True, True),
        (BROKEN, "POST", False, False),
        (BROKEN, "DELETE", False, False),
        (Refused(CONFLICT, "x"), "GET", False, False),
        (Refused(CODES["idempotency.in_progress"], "x"), "POST", True, True),
        (Refused(CODES["idempotency.key_reused"], "x"), "POST", True, False),
    ],
)
def test_what_may_be_repeated(error: TrivetError, method: str, keyed: bool, again: bool) -> None:
    assert may_repeat(error, method, keyed=keyed) is again


def test_pauses_grow_to_a_bound_and_heed_the_other_side() -> None:
    assert [pause_s(n, BROKEN) for n in (1, 2, 3)] == [0.2, 0.4, 0.8]
    assert pause_s(50, BROKEN) == 5
    assert pause_s(1, Retry(TOO_MANY, "x", retry_after_s=7)) == 7


def problem(code: str) -> httpx.Response:
    told = CODES[code]
    body = {"code": code, "title": told.title, "detail": "x", "type": "/"}
    headers = {"Retry-After": "1"} if told.http_status in (409, 429, 503) else {}
    return httpx.Response(told.http_status, content=json.dumps(body), headers=headers)


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Client, list[httpx.Request]]]:
    """A client whose calls get these replies in turn, and what it sent."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    def make(*replies: Any, retry_s: float = 10) -> tuple[Client, list[httpx.Request]]:
        left, sent = list(replies), []

        def answer(request: httpx.Request) -> httpx.Response:
            sent.append(request)
            reply = left.pop(0)
            if isinstance(reply, Exception):
                raise reply
            return reply

        transport = httpx.MockTransport(answer)
        return Client("http://x", "t", project="p", retry_s=retry_s, transport=transport), sent

    return make


def test_a_create_is_sent_again_under_one_key(talk: Any) -> None:
    good = httpx.Response(201, content=WEB)
    broken = httpx.ReadError("gone")
    client, sent = talk(broken, problem("bus.timeout"), problem("idempotency.in_progress"), good)
    made = client.kind(VM).create("web", VmSpec(vcpus=2))
    assert made.meta.name == "web"
    assert len({request.headers["Idempotency-Key"] for request in sent}) == 1
    assert len(sent) == 4
    assert json.loads(sent[0].content)["spec"] == {"vcpus": 2}


def test_an_edit_of_unknown_outcome_is_told(talk: Any) -> None:
    client, sent = talk(httpx.ReadTimeout("late"))
    with pytest.raises(Retry) as error:
        client.kind(VM).edit("web", {"vcpus": 3})
    assert (error.value.code, len(sent)) == (TIMEOUT, 1)


def test_what_never_arrived_is_sent_again(talk: Any) -> None:
    client, sent = talk(
        httpx.ConnectError("no"), problem("request.too_many"), httpx.Response(200, content=WEB)
    )
    assert client.kind(VM).delete("web").meta.name == "web"
    assert len(sent) == 3


def test_without_time_to_retry_nothing_is_repeated_and_no_key_is_made(talk: Any) -> None:
    client, sent = talk(problem("bus.unavailable"), retry_s=0)
    with pytest.raises(Retry):
        client.kind(VM).create("web")
    assert [("Idempotency-Key" in request.headers) for request in sent] == [False]


def test_a_key_of_the_callers_own_is_used(talk: Any) -> None:
    client, sent = talk(httpx.Response(201, content=WEB), retry_s=0)
    client.kind(VM).create("web", key="mine")
    assert sent[0].headers["Idempotency-Key"] == "mine"


def test_lists_go_on_to_the_last_page(talk: Any) -> None:
    page = '{"items": [%s], "cursor": %s}'
    pages = [httpx.Response(200, content=page % (WEB, c)) for c in ('"next"', "null")]
    client, sent = talk(*pages)
    assert [vm.meta.name for vm in client.kind(VM).list(label="a=b")] == ["web", "web"]
    assert [dict(r.url.params).get("cursor") for r in sent] == [None, "next"]
