"""The law for the consoles of hypervisors, as tests: subclass `ConsoleSuite`, provide `bench`.

The bench is the one of `suites.hypervisor`; its guest has a shell on its serial console.
"""

from __future__ import annotations

import asyncio
import re
import struct
from contextlib import suppress

import pytest

from trivet.contracts.compute.console import Screens
from trivet.contracts.compute.guest_agent import GuestAgent, GuestReport
from trivet.contracts.compute.hypervisor import Act
from trivet.contracts.errors import Refused, Retry
from trivet.contracts.model import ResourceId
from trivet.testing.suites.hypervisor import LOOK_S, HypervisorBench, boot

RETYPE_S = 2.0


async def types(bench: HypervisorBench, path: str, said: str) -> bytes:
    """Type `echo <said>` until the console shows the answer; returns all it has shown."""
    reader, writer = await asyncio.open_unix_connection(path)
    shown = b""
    try:
        async with asyncio.timeout(bench.patience_s):
            while not re.search(rb"^" + said.encode() + rb"\r$", shown, re.MULTILINE):
                writer.write(f"echo {said}\n".encode())
                try:
                    async with asyncio.timeout(RETYPE_S):
                        while data := await reader.read(4096):
                            shown += data
                            if re.search(rb"^" + said.encode() + rb"\r$", shown, re.MULTILINE):
                                break
                except TimeoutError:
                    continue  # the shell was not there yet
    finally:
        writer.close()
        await writer.wait_closed()
    return shown


async def records(bench: HypervisorBench, id_: ResourceId, said: str) -> None:
    """Wait until the log has the answer: it may be a moment behind the line."""
    async with asyncio.timeout(bench.patience_s):
        while True:
            if f"\n{said}\r".encode() in await bench.driver.console_log(id_, 100_000):
                return
            await asyncio.sleep(LOOK_S)


class ConsoleSuite:
    """What must hold of the consoles of every hypervisor driver."""

    async def test_the_line_goes_both_ways_and_is_recorded(self, bench: HypervisorBench) -> None:
        """Who talks to a guest takes nothing from its log; after one client comes the next."""
        spec = bench.spec()
        await boot(bench, spec)
        path = await bench.driver.console_path(spec.id)
        for said in ("hello-1", "hello-2"):
            await types(bench, path, said)
            await records(bench, spec.id, said)
        assert b"READY" in await bench.driver.console_log(spec.id, 100_000)
        await bench.driver.act(spec.id, Act.DESTROY)
        with pytest.raises(Refused):
            await bench.driver.console_path(spec.id)

    async def test_a_screen_is_shared_and_photographed(self, bench: HypervisorBench) -> None:
        """Two viewers at once see a screen of one size, and a picture of it is as large."""
        driver, spec = bench.driver, bench.spec()
        assert isinstance(driver, Screens)
        await boot(bench, spec)
        path = await driver.screen_path(spec.id)
        async with asyncio.timeout(bench.patience_s):
            first, second = await _viewer(path), await _viewer(path)
            picture = await driver.screenshot(spec.id)
        assert picture.startswith(b"\x89PNG\r\n\x1a\n")
        assert first[0] == second[0] == struct.unpack(">II", picture[16:24])
        for _, writer in (first, second):
            writer.close()
            await writer.wait_closed()
        await driver.act(spec.id, Act.DESTROY)
        for ask in (driver.screen_path, driver.screenshot):
            with pytest.raises(Refused):
                await ask(spec.id)

    async def test_the_agent_freezes_for_a_moment_only(self, bench: HypervisorBench) -> None:
        """What is frozen is thawed by whom it was asked of, or by the bound; and it reports."""
        driver, spec = bench.driver, bench.spec()
        assert isinstance(driver, GuestAgent)
        await boot(bench, spec)
        report = await reported(bench, spec.id)
        assert report.hostname
        assert await driver.freeze(spec.id, 30) >= 1
        with pytest.raises(Retry):
            await driver.freeze(spec.id, 30)
        assert await driver.thaw(spec.id) >= 1
        assert await driver.thaw(spec.id) == 0
        assert await driver.freeze(spec.id, 0.5) >= 1
        await reported(bench, spec.id)  # it can't say anything before it is thawed
        assert await driver.thaw(spec.id) == 0
        await driver.set_time(spec.id)
        await driver.act(spec.id, Act.DESTROY)
        assert await driver.report(spec.id) is None
        for ask in (driver.thaw, driver.set_time):
            with pytest.raises(Refused):
                await ask(spec.id)


async def reported(bench: HypervisorBench, id_: ResourceId) -> GuestReport:
    """What the agent in the guest says as soon as it says something."""
    assert isinstance(bench.driver, GuestAgent)
    async with asyncio.timeout(bench.patience_s):
        while True:
            with suppress(Retry):
                if (report := await bench.driver.report(id_)) is not None:
                    return report
            await asyncio.sleep(LOOK_S)


async def _viewer(path: str) -> tuple[tuple[int, int], asyncio.StreamWriter]:
    """Begin to view: the width and height that the screen says it has."""
    reader, writer = await asyncio.open_unix_connection(path)
    assert await reader.readexactly(12) == b"RFB 003.008\n"
    writer.write(b"RFB 003.008\n")
    count = (await reader.readexactly(1))[0]
    assert 1 in await reader.readexactly(count), "it asks for a password"
    writer.write(b"\x01")
    assert await reader.readexactly(4) == bytes(4)
    writer.write(b"\x01")
    width, height = struct.unpack(">HH", await reader.readexactly(4))
    return (width, height), writer
