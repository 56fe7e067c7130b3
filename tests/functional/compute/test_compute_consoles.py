"""Consoles: who has a ticket joins once, many look at one line, and nobody stays for ever."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from pathlib import Path
from typing import Any

import pytest

from trivet.compute.bootstrap import bootstrap
from trivet.contracts.compute.console import ConsoleKind, ConsoleRequest
from trivet.contracts.compute.endpoints.console_join import ENDPOINT as JOIN
from trivet.contracts.compute.endpoints.console_join import JoinRequest
from trivet.contracts.compute.endpoints.node_stream_ticket import ENDPOINT as NODE_TICKET
from trivet.contracts.compute.endpoints.node_stream_ticket import StreamKind, StreamRequest
from trivet.contracts.compute.endpoints.vm_console import ENDPOINT as CONSOLE
from trivet.contracts.compute.endpoints.vm_console_ticket import ENDPOINT as CONSOLE_TICKET
from trivet.contracts.compute.endpoints.vm_stop import ENDPOINT as STOP
from trivet.contracts.compute.endpoints.vm_stop import StopRequest
from trivet.contracts.compute.vm import Power, WantedPower
from trivet.contracts.errors import CONFLICT, TOO_MANY, UNAUTHENTICATED, Refused, Retry
from trivet.contracts.stream import StreamTicket
from trivet.host.certificates import ensure_certificates
from trivet.runtime.streams import Dialer

HERE = Dialer("n1")


async def running(world: Any, name: str = "web") -> Any:
    await world.create(name)
    return await world.until(lambda v: v.status.guest_ready, name)


async def ticket(world: Any, kind: ConsoleKind = ConsoleKind.SERIAL) -> StreamTicket:
    request = ConsoleRequest(project="p", name="web", kind=kind)
    answer: StreamTicket = await world.harness.call(CONSOLE, request)
    return answer


async def read_until(reader: asyncio.StreamReader, wanted: bytes) -> bytes:
    shown = b""
    async with asyncio.timeout(60):
        while wanted not in shown:
            data = await reader.read(4096)
            assert data, f"ended after {shown!r}"
            shown += data
    return shown


async def ended(reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(60):
        while await reader.read(65536):
            pass
    return True


async def test_two_viewers_share_a_line_that_is_still_recorded(world: Any) -> None:
    vm = await running(world)
    async with (
        HERE.dial(await ticket(world)) as (first, keys),
        HERE.dial(await ticket(world)) as (second, other_keys),
    ):
        keys.write(b"echo one\n")
        for reader in (first, second):
            assert b"one\r\n" in await read_until(reader, b"~ # ")
        other_keys.write(b"echo two\n")
        for reader in (first, second):
            assert b"two\r\n" in await read_until(reader, b"~ # ")
    log = await world.host().drivers[0].console_log(vm.meta.id, 10_000)
    assert b"READY" in log
    assert b"one\r\n" in log
    assert b"two\r\n" in log
    # All are gone, and so is the connection: the line takes the next client.
    async with HERE.dial(await ticket(world)) as (reader, keys):
        keys.write(b"echo three\n")
        await read_until(reader, b"three\r\n")


async def test_a_ticket_is_good_once_and_for_a_while(world: Any) -> None:
    vm = await running(world)
    used = await ticket(world)
    async with HERE.dial(used):
        pass
    old = await world.harness.call(
        NODE_TICKET,
        StreamRequest(id=vm.meta.id, kind=StreamKind.SERIAL, expires_s=0.01),
        node="n1",
    )
    await asyncio.sleep(0.02)
    made_up = used.model_copy(update={"secret": "0" * 64})
    for bad in (used, old, made_up):
        with pytest.raises(Refused) as refused:
            async with HERE.dial(bad):
                pass
        assert refused.value.code is UNAUTHENTICATED


async def test_nothing_is_served_to_who_says_something_else(world: Any) -> None:
    await running(world)
    given = await ticket(world)
    for said in (b"GET / HTTP/1.1\r\n\r\n", b"\n", b"x" * 100_000):
        reader, writer = await asyncio.open_unix_connection(_short(given.socket))
        writer.write(said)
        assert await ended(reader)
        writer.close()
    async with HERE.dial(given):
        pass


async def test_a_guest_that_does_not_run_has_no_console(world: Any) -> None:
    await world.create(power=WantedPower.STOPPED)
    await world.until(lambda v: v.settled())
    with pytest.raises(Refused):
        await ticket(world)


async def test_the_stream_ends_with_the_guest(world: Any) -> None:
    await running(world)
    async with HERE.dial(await ticket(world)) as (reader, _):
        await world.harness.call(STOP, StopRequest(project="p", name="web", force=True))
        assert await ended(reader)
    await world.until(lambda v: v.status.power is Power.STOPPED)
    with pytest.raises(Refused) as refused:
        await ticket(world)
    assert refused.value.code is CONFLICT


async def test_viewers_are_bounded(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trivet.compute.node.consoles.VIEWERS_MAX", 1)
    await running(world)
    async with HERE.dial(await ticket(world)):
        with pytest.raises(Retry) as busy:
            async with HERE.dial(await ticket(world)):
                pass
        assert busy.value.code is TOO_MANY


async def test_a_viewer_that_does_not_read_holds_nobody_up(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trivet.compute.node.consoles.BEHIND_BYTES", 20_000)
    vm = await running(world)
    async with (
        HERE.dial(await ticket(world)) as (slow, _),
        HERE.dial(await ticket(world)) as (quick, keys),
    ):
        keys.write(b"echo here\n")
        await read_until(quick, b"here\r\n")
        domain = world.host().domains[vm.meta.id]
        shown = 0
        for _ in range(100):  # more than all buffers between here and the slow one
            domain.show(b"x" * 10_000)
            while shown < 10_000:
                shown += len(await quick.read(4096))
            shown -= 10_000
        keys.write(b"echo still\n")
        await read_until(quick, b"still\r\n")
        assert await ended(slow)


async def test_a_ticket_for_the_browser_is_swapped_and_used_up(world: Any) -> None:
    await running(world)
    request = ConsoleRequest(project="p", name="web")
    given = await world.harness.call(CONSOLE_TICKET, request)
    assert given.path == f"/v1/consoles/{given.ticket}"
    joined = await world.harness.call(JOIN, JoinRequest(ticket=given.ticket))
    assert joined.secret not in given.ticket
    async with HERE.dial(joined) as (reader, keys):
        keys.write(b"echo here\n")
        await read_until(reader, b"here\r\n")
    for text in (given.ticket, f"n9.{'0' * 64}", f"n1.{'0' * 64}"):
        with pytest.raises(Refused) as refused:
            await world.harness.call(JOIN, JoinRequest(ticket=text))
        assert refused.value.code is UNAUTHENTICATED


@pytest.fixture
def tls(tmp_path: Path) -> Path:
    """A cluster's authority, and a node's certificate."""
    folder = tmp_path / "tls"
    now = dt.datetime.now(dt.UTC)
    ensure_certificates(folder, ["localhost"], ["127.0.0.1"], os.geteuid(), now)
    return folder


async def test_a_gateway_elsewhere_comes_over_tls(world: Any, tls: Path, tmp_path: Path) -> None:
    vm = await running(world)
    await world.crash()
    settings = world.harness.settings
    certified = settings.gateway.model_copy(
        update={"certificate": tls / "server.pem", "private_key": tls / "server.key"}
    )
    world.harness.settings = settings.model_copy(update={"gateway": certified})
    await world.start()
    await world.until(lambda v: v.status.guest_ready)
    given = await world.harness.call(
        NODE_TICKET, StreamRequest(id=vm.meta.id, kind=StreamKind.SERIAL), node="n1"
    )
    with pytest.raises(Retry, match="don't leave it"):
        async with Dialer("n2").dial(given):
            pass
    strange = tmp_path / "strange"
    ensure_certificates(strange, ["x"], ["127.0.0.1"], os.geteuid(), dt.datetime.now(dt.UTC))
    with pytest.raises(Retry, match="certificate verify failed"):
        async with Dialer("n2", strange / "ca.pem").dial(given):
            pass
    async with Dialer("n2", tls / "ca.pem").dial(given) as (reader, keys):
        keys.write(b"echo over tls\n")
        await read_until(reader, b"over tls\r\n")


async def test_each_node_serves_its_own(world: Any) -> None:
    """The harness gives both nodes one folder: their sockets are told apart."""
    await world.harness.start("compute", bootstrap, "n2")
    await running(world)
    assert {p.name for p in world.harness.settings.run_dir.glob("*.sock")} == {
        "streams-n1.sock",
        "streams-n2.sock",
    }


def _short(path: str | None) -> str:
    assert path is not None
    folder = os.open(Path(path).parent, os.O_PATH)
    return f"/proc/self/fd/{folder}/{Path(path).name}"
