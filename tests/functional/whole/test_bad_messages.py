"""What is no message of ours, on every subject that anybody listens on, harms nobody."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivet.contracts.access import service_caller
from trivet.contracts.errors import CODES, ErrorBody
from trivet.testing.memory_bus import MemoryBus

CALLER = service_caller("test").model_dump_json()
HEADERS = (
    "Trivet-Caller",
    "Trivet-Request-Id",
    "Trivet-Nonce",
    "Trivet-Timeout-Ms",
    "traceparent",
    "tracestate",
    "baggage",
    "odd",
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.sampled_from(["kind", "meta", "spec", "name", "project", "node", "id", "key", "entries"]),
    JUNK,
)
DATA = st.binary(max_size=300) | (JUNK | FIELDS).map(lambda value: json.dumps(value).encode())
HEADER_VALUES = st.text(max_size=60) | st.just(CALLER)


def subjects(node: Any) -> list[str]:
    """Every subject that somebody answers or hears."""
    patterns = {listener.pattern for listener in node.harness.broker.listeners}
    return sorted(p.replace("*", "x").replace(">", "x.y") for p in patterns)


async def test_junk_on_every_subject_is_refused_and_harms_nobody(node: Any) -> None:
    bus = MemoryBus(node.harness.broker, "stranger")
    loop = asyncio.get_running_loop()
    told: set[str] = set()

    async def send(subject: str, data: bytes, headers: dict[str, str]) -> None:
        if ".beat." in subject or subject.startswith("trivet.evt"):
            await bus.publish(subject, data, headers=headers)
            return
        reply = await bus.request(subject, data, timeout_s=60, headers=headers)
        if reply.startswith(b"!"):
            error = ErrorBody.model_validate_json(reply[1:])
            assert error.code in CODES
            assert error.code != "internal", (subject, data, headers, error)
            told.add(error.code)

    def ask_all() -> None:
        headers_of = st.dictionaries(st.sampled_from(HEADERS), HEADER_VALUES, max_size=4)

        @settings(
            max_examples=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(st.tuples(DATA, headers_of), min_size=8, max_size=8))
        def each(messages: list[tuple[bytes, dict[str, str]]]) -> None:
            for number, subject in enumerate(everywhere):
                data, headers = messages[number % len(messages)]
                asyncio.run_coroutine_threadsafe(send(subject, data, headers), loop).result(90)

        everywhere = subjects(node)
        each()

    await asyncio.to_thread(ask_all)
    assert "request.malformed" in told
    await _all_is_well(node)


async def test_junk_in_the_stream_of_events_is_passed_over(node: Any) -> None:
    bus = MemoryBus(node.harness.broker, "stranger")
    for n, data in enumerate((b"", b"{}", b"\xff\xfe", b"[1]", b'{"type": 5}', b"x" * 100_000)):
        for service in ("compute", "storage", "network", "security"):
            subject = f"trivet.evt.{service}.vm.created.v1"
            await bus.append_event(subject, data, message_id=f"{service}/{n}")
    await _all_is_well(node)


async def _all_is_well(node: Any) -> None:
    """Every service runs, answers, and still does its work."""
    for (name, _), running in node.harness._running.items():
        assert not running.task.done(), name
    assert (await node.http.get("/v1/health")).json()["status"] == "ok"
    spec = {"subnets": ["10.77.0.0/24"]}
    made = await node.settled("/v1/projects/default/networks", meta={"name": "after"}, spec=spec)
    assert made["status"]["phase"] == "ready"
