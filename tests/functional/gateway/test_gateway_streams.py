"""Streams over WebSockets and as bodies: who may, what ends them, and what never gets so far."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from trivet.contracts.compute.endpoints.console_join import ENDPOINT as JOIN
from trivet.contracts.compute.endpoints.vm_console import ENDPOINT as CONSOLE
from trivet.contracts.compute.endpoints.vm_screenshot import ENDPOINT as SCREENSHOT
from trivet.contracts.errors import CONFLICT, Refused
from trivet.contracts.security.endpoints.token_holds import ENDPOINT as HOLDS
from trivet.contracts.security.endpoints.token_holds import HoldsRequest, HoldsResponse
from trivet.contracts.stream import OnBehalf, StreamTicket
from trivet.gateway.openapi import document
from trivet.gateway.routes import all_endpoints, routes
from trivet.runtime.clock import SystemClock
from trivet.runtime.streams import Pump, StreamServer, copy

PATH = "/v1/projects/red/vms/web/console"
Opened = Callable[[], Awaitable[Pump]]


async def echoes() -> Pump:
    return copy


@asynccontextmanager
async def node(
    site: Any, folder: Path, opens: Opened = echoes, on_behalf: OnBehalf | None = None
) -> AsyncIterator[StreamServer]:
    """A node whose streams echo, behind the console of every VM."""
    server = StreamServer("n1", folder / "s.sock", None, SystemClock())
    running = asyncio.create_task(server.run())

    async def give(request: Any, call: Any) -> StreamTicket:
        return server.ticket(opens, 5, on_behalf)

    await site.cloud.serve(CONSOLE, give)
    await site.cloud.serve(SCREENSHOT, give)
    await site.cloud.serve(JOIN, give)
    while not (folder / "s.sock").exists():  # noqa: ASYNC110 - it has no other way to say so
        await asyncio.sleep(0.005)
    yield server
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def joining(address: str, path: str = PATH, who: str | None = "alice", **more: Any) -> Any:
    headers = {"Authorization": f"Bearer {who}"} if who else {}
    return websockets.connect(f"ws://{address}{path}", additional_headers=headers, **more)


async def test_bytes_go_both_ways_and_it_is_audited(
    served: Any, until: Any, tmp_path: Path
) -> None:
    async with served() as (site, address, _), node(site, tmp_path):
        async with joining(address, subprotocols=["binary"]) as socket:
            assert socket.subprotocol == "binary"
            for sent in (b"\x00\xff", b"x" * 50_000):
                await socket.send(sent)
                got = b""
                while len(got) < len(sent):
                    got += await socket.recv()
                assert got == sent
            await socket.send("text")
            assert await socket.recv() == b"text"
        await until(lambda: site.cloud.audit)
        entry = site.cloud.audit[0]
        assert (entry.user, entry.op, entry.target) == ("alice", "vm.console", "web")
        assert (entry.project, entry.outcome) == ("red", "ok")


@pytest.mark.parametrize(
    ("who", "path", "status", "code"),
    [
        (None, PATH, 401, "auth.unauthenticated"),
        ("stranger", PATH, 401, "auth.unauthenticated"),
        ("nobody", PATH, 403, "auth.forbidden"),
        ("alice", "/v1/projects/blue/vms/web/console", 403, "auth.forbidden"),
        ("alice", PATH + "?kind=telepathy", 400, "request.malformed"),
        ("alice", PATH + "?node=n1", 400, "request.malformed"),
        (None, "/v1/consoles/n1.short", 400, "request.malformed"),
    ],
)
async def test_what_is_refused_is_a_problem_document(
    served: Any, tmp_path: Path, who: str | None, path: str, status: int, code: str, caplog: Any
) -> None:
    async with served() as (site, address, _), node(site, tmp_path):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with joining(address, path, who):
                pass
        reply = refused.value.response
        assert reply.status_code == status
        assert reply.headers["Content-Type"] == "application/problem+json"
        assert f'"code":"{code}"'.encode() in reply.body
    assert not [r for r in caplog.records if r.name.startswith("uvicorn")]


async def test_what_the_node_refuses_is_told_before_the_socket(served: Any, tmp_path: Path) -> None:
    async def refuses() -> Pump:
        raise Refused(CONFLICT, "it does not run")

    async with served() as (site, address, _), node(site, tmp_path, refuses):
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with joining(address):
                pass
        assert refused.value.response.status_code == 409
        assert b"it does not run" in refused.value.response.body


async def test_a_ticket_is_enough(served: Any, tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO")
    async with (
        served() as (site, address, _),
        node(site, tmp_path),
        joining(address, f"/v1/consoles/n1.{'0' * 64}", None) as socket,
    ):
        await socket.send(b"hello")
        assert await socket.recv() == b"hello"
    assert "0" * 64 not in caplog.text


async def test_the_node_ends_it(served: Any, tmp_path: Path) -> None:
    async def brief() -> Pump:
        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"bye")

        return pump

    async with (
        served() as (site, address, _),
        node(site, tmp_path, brief),
        joining(address) as socket,
    ):
        assert await socket.recv() == b"bye"
        with pytest.raises(websockets.ConnectionClosedOK):
            await socket.recv()


async def test_a_revoked_token_ends_it(served: Any, tmp_path: Path) -> None:
    async with (
        served(identity_cache_s=0.05) as (site, address, _),
        node(site, tmp_path),
        joining(address) as socket,
    ):
        await socket.send(b"x")
        assert await socket.recv() == b"x"
        del site.cloud.callers["alice"]
        with pytest.raises(websockets.ConnectionClosed) as closed:
            async with asyncio.timeout(60):
                await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
        assert "auth.unauthenticated" in closed.value.rcvd.reason


async def test_a_revoked_token_ends_what_its_ticket_joined(served: Any, tmp_path: Path) -> None:
    asked: list[OnBehalf] = []
    behalf = OnBehalf(user="alice", token_id="token-1", permission="x.y.z", project="red")

    async def holds(request: HoldsRequest, call: Any) -> HoldsResponse:
        asked.append(request.on_behalf)
        return HoldsResponse(holds=len(asked) < 3)

    async with (
        served(identity_cache_s=0.05) as (site, address, _),
        node(site, tmp_path, on_behalf=behalf),
    ):
        await site.cloud.serve(HOLDS, holds)
        async with joining(address, f"/v1/consoles/n1.{'0' * 64}", None) as socket:
            await socket.send(b"x")
            assert await socket.recv() == b"x"
            with pytest.raises(websockets.ConnectionClosed) as closed:
                async with asyncio.timeout(60):
                    await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, asked) == (1008, [behalf] * 3)


async def test_a_stop_ends_it(served: Any, tmp_path: Path) -> None:
    async with served() as (site, address, stop), node(site, tmp_path), joining(address) as socket:
        stop.set()
        with pytest.raises(websockets.ConnectionClosed) as closed:
            async with asyncio.timeout(60):
                await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001


async def test_streams_are_bounded(served: Any, tmp_path: Path) -> None:
    async with (
        served(streams=1) as (site, address, _),
        node(site, tmp_path),
        joining(address) as socket,
    ):
        await socket.send(b"x")
        await socket.recv()
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with joining(address):
                pass
        assert refused.value.response.status_code == 429


async def test_a_plain_request_is_told_to_upgrade(served: Any, tmp_path: Path) -> None:
    async with served() as (_, address, _), httpx.AsyncClient() as http:
        reply = await http.get(f"http://{address}{PATH}")
        assert (reply.status_code, reply.json()["code"]) == (426, "request.upgrade_required")
        assert reply.headers["Upgrade"] == "websocket"


async def test_a_stream_as_a_body_is_whole_and_bounded(served: Any, tmp_path: Path) -> None:
    data = b"\x89PNG" + bytes(100_000)

    async def tells() -> Pump:
        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(data)
            await writer.drain()

        return pump

    path, token = "/v1/projects/red/vms/web/screenshot", {"Authorization": "Bearer alice"}
    for bound, status in ((100_004, 200), (100_003, 500)):
        async with (
            served(download_bytes=bound) as (site, address, _),
            node(site, tmp_path, tells),
            httpx.AsyncClient(base_url=f"http://{address}") as http,
        ):
            reply = await http.get(path, headers=token)
            assert reply.status_code == status
            assert (await http.get(path)).status_code == 401
            if status == 200:
                assert reply.content == data
                assert reply.headers["Content-Type"] == "image/png"
        (tmp_path / "s.sock").unlink()


def test_the_document_says_what_it_is() -> None:
    operation = document(routes(all_endpoints()))["paths"][CONSOLE.http.path]["get"]
    assert operation["x-trivet-websocket"] is True
    assert "101" in operation["responses"]
    assert {p["name"] for p in operation["parameters"]} == {"project", "name", "kind"}
