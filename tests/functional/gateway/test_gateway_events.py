"""Events to subscribers, over a real socket: order, resumption, filters, revocation, stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import websockets

from trivet.gateway.limits import Limits


@asynccontextmanager
async def following(
    address: str, query: str = "", who: str = "admin", **headers: str
) -> AsyncIterator[AsyncIterator[tuple[int, dict[str, Any]]]]:
    """The events that a subscriber gets, as (id, event); keep-alives are left out."""
    sent = {
        "Authorization": f"Bearer {who}",
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    async with (
        httpx.AsyncClient(base_url=f"http://{address}", timeout=10) as http,
        http.stream("GET", f"/v1/events{query}", headers=sent) as reply,
    ):
        assert reply.status_code == 200
        assert reply.headers["Content-Type"].startswith("text/event-stream")

        async def events() -> AsyncIterator[tuple[int, dict[str, Any]]]:
            seq = 0
            async for line in reply.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    seq = int(value)
                if name == "data":
                    yield seq, json.loads(value)

        yield events()


async def take(events: AsyncIterator[Any], count: int) -> list[Any]:
    async with asyncio.timeout(60):
        return [await anext(events) for _ in range(count)]


async def test_events_come_in_order_from_the_moment_of_the_reply(served: Any) -> None:
    async with served() as (site, address, _):
        await site.cloud.emit("created")
        async with following(address) as events:
            for verb in ("placed", "started", "booted"):
                await site.cloud.emit(verb)
            got = await take(events, 3)
    assert [seq for seq, _ in got] == [2, 3, 4]
    assert [e["type"] for _, e in got] == [
        f"trivet.compute.vm.{v}.v1" for v in ("placed", "started", "booted")
    ]


async def test_a_subscriber_resumes_after_the_last_event_it_had(served: Any) -> None:
    async with served() as (site, address, _):
        for _ in range(4):
            await site.cloud.emit("created")
        async with following(address, Last_Event_ID="2") as events:
            assert [seq for seq, _ in await take(events, 2)] == [3, 4]
        async with following(address, "?since=2") as events:
            assert [seq for seq, _ in await take(events, 3)] == [2, 3, 4]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?since=1", [1, 2, 3, 4]),
        ("?since=1&subject=compute.>", [1, 2, 4]),
        ("?since=1&subject=*.volume", [3]),
        ("?since=1&subject=compute.vm.stopped", [2]),
        ("?since=1&subject=trivet.compute.vm.stopped.v1", [2]),
        ("?since=1&project=blue", [4]),
    ],
)
async def test_filters(served: Any, query: str, expected: list[int]) -> None:
    async with served() as (site, address, _):
        await site.cloud.emit("started")
        await site.cloud.emit("stopped")
        await site.cloud.emit("created", service="storage", noun="volume")
        await site.cloud.emit("started", project="blue")
        async with following(address, query) as events:
            assert [seq for seq, _ in await take(events, len(expected))] == expected


async def test_only_what_the_caller_may_see_is_told(served: Any) -> None:
    async with (
        served() as (site, address, _),
        following(address, who="alice") as events,
    ):
        await site.cloud.emit("created", project="blue")
        await site.cloud.emit("created", service="storage", noun="volume")
        await site.cloud.emit("created", service="compute", noun="node", project=None)
        await site.cloud.emit("created", project="red")
        assert [seq for seq, _ in await take(events, 1)] == [4]


async def test_a_stranger_gets_no_stream(served: Any) -> None:
    async with served() as (_, address, _), httpx.AsyncClient() as http:
        reply = await http.get(f"http://{address}/v1/events")
        assert (reply.status_code, reply.json()["code"]) == (401, "auth.unauthenticated")


async def test_a_revoked_token_ends_the_stream(served: Any) -> None:
    async with (
        served(identity_cache_s=0.05, event_keepalive_s=0.05) as (
            site,
            address,
            _,
        ),
        following(address, who="alice") as events,
    ):
        del site.cloud.callers["alice"]
        async with asyncio.timeout(60):
            assert [e async for e in events] == []


async def test_more_streams_than_the_bound_are_refused_until_one_ends(
    served: Any, until: Any
) -> None:
    async with (
        served(streams=1) as (site, address, _),
        httpx.AsyncClient() as http,
    ):
        url, headers = f"http://{address}/v1/events", {"Authorization": "Bearer admin"}
        async with following(address) as events:
            await site.cloud.emit("created")
            await take(events, 1)
            refused = await http.get(url, headers=headers)
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "10")

        async def free() -> bool:
            async with http.stream("GET", url, headers=headers) as reply:
                return reply.status_code == 200

        await until(free)


async def test_a_slow_subscriber_misses_nothing(served: Any) -> None:
    async with (
        served(event_buffer=2) as (site, address, _),
        following(address) as events,
    ):
        for _ in range(200):
            await site.cloud.emit("created")
        assert [seq for seq, _ in await take(events, 200)] == list(range(1, 201))


async def test_a_stop_ends_the_streams_at_once(served: Any) -> None:
    async with served() as (_, address, stop), following(address) as events:
        stop.set()
        async with asyncio.timeout(60):
            assert [e async for e in events] == []


async def test_events_over_a_websocket(served: Any) -> None:
    async with served() as (site, address, _):
        await site.cloud.emit("created")
        url, headers = f"ws://{address}/v1/events?since=1", {"Authorization": "Bearer admin"}
        async with websockets.connect(url, additional_headers=headers) as talk:
            got = json.loads(await talk.recv())
            assert (got["seq"], got["event"]["data"]["name"]) == (1, "web")


async def test_a_stranger_at_the_websocket_is_told_why(served: Any) -> None:
    async with (
        served() as (_, address, _),
        websockets.connect(f"ws://{address}/v1/events") as talk,
    ):
        assert json.loads(await talk.recv())["code"] == "auth.unauthenticated"
        with pytest.raises(websockets.ConnectionClosedError):
            await talk.recv()


async def test_a_head_over_the_bound_is_cut_off(served: Any) -> None:
    async with served() as (_, address, _):
        host, port = address.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET / HTTP/1.1\r\nX: ")

        async def send_more() -> None:
            for _ in range(Limits().head_bytes):
                writer.write(b"x" * 1024)
                await writer.drain()

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send_more(), 60)
        writer.close()
