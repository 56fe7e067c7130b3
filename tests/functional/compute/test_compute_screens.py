"""Screens: what VNC speaks goes through as it is, and a picture comes whole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trivet.contracts.compute.console import ConsoleKind, ConsoleRequest
from trivet.contracts.compute.endpoints.vm_console import ENDPOINT as CONSOLE
from trivet.contracts.compute.endpoints.vm_screenshot import ENDPOINT as SCREENSHOT
from trivet.contracts.compute.endpoints.vm_stop import ENDPOINT as STOP
from trivet.contracts.compute.endpoints.vm_stop import StopRequest
from trivet.contracts.endpoint import Ref
from trivet.contracts.errors import CONFLICT, Refused
from trivet.runtime.streams import Dialer

HERE = Dialer("n1")
WEB = Ref(project="p", name="web")
VNC = ConsoleRequest(project="p", name="web", kind=ConsoleKind.VNC)


async def test_viewers_speak_with_the_screen_and_end_with_the_guest(world: Any) -> None:
    await world.create()
    await world.until(lambda v: v.status.guest_ready)
    async with (
        HERE.dial(await world.harness.call(CONSOLE, VNC)) as (first, _),
        HERE.dial(await world.harness.call(CONSOLE, VNC)) as (second, answers),
        asyncio.timeout(60),
    ):
        for reader in (first, second):
            assert await reader.readexactly(12) == b"RFB 003.008\n"
        answers.write(b"RFB 003.008\n")
        assert await second.readexactly(2) == b"\x01\x01"
        await world.harness.call(STOP, StopRequest(project="p", name="web", force=True))
        for reader in (first, second):
            assert await reader.read() == b""
    await world.until(lambda v: v.settled())
    for endpoint, request in ((CONSOLE, VNC), (SCREENSHOT, WEB)):
        with pytest.raises(Refused) as refused:
            await world.harness.call(endpoint, request)
        assert refused.value.code is CONFLICT


async def test_a_picture_is_a_stream_that_ends(world: Any) -> None:
    await world.create()
    await world.until(lambda v: v.status.guest_ready)
    async with (
        HERE.dial(await world.harness.call(SCREENSHOT, WEB)) as (reader, _),
        asyncio.timeout(60),
    ):
        picture = await reader.read()
    assert picture.startswith(b"\x89PNG")
    assert picture.endswith(b"IEND\xaeB`\x82")
