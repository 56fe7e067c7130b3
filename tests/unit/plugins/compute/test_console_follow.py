"""Guests that get ready are found by their consoles' logs, told or not told by the kernel."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from trivet.contracts.model import ResourceId
from trivet.plugins.compute import console_follow
from trivet.plugins.compute.console_follow import follow
from trivet.plugins.compute.console_watch import ConsoleLog

WITHIN_S = 20.0
ONE, TWO = ResourceId("vm-1"), ResourceId("vm-2")
NEVER_S = 3600.0


class Guests:
    """Two guests, and who was told to be ready."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = {id_: ConsoleLog(folder / f"{id_}.log") for id_ in (ONE, TWO)}
        self.told: list[ResourceId] = []
        self.news = asyncio.Event()
        for console in self.logs.values():
            console.start()

    def show(self, id_: ResourceId, text: bytes) -> None:
        with self.logs[id_].path.open("ab") as file:
            file.write(text)

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        task = asyncio.create_task(follow(self.folder, lambda: self.logs, self.tell))
        await asyncio.sleep(0)
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def tell(self, id_: ResourceId) -> None:
        self.told.append(id_)
        self.news.set()

    async def until(self, *told: ResourceId) -> None:
        async with asyncio.timeout(WITHIN_S):
            while self.told != [*told]:
                self.news.clear()
                await self.news.wait()


@pytest.fixture
def guests(tmp_path: Path) -> Guests:
    return Guests(tmp_path)


async def test_one_that_gets_ready_is_told_as_it_writes(
    guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_follow, "ALL_LOOK_S", NEVER_S)
    async with guests.followed():
        guests.show(TWO, b"booting")
        guests.show(ONE, b"\nREADY\n")
        await guests.until(ONE)
        guests.show(TWO, b"\nREADY\n")
        await guests.until(ONE, TWO)


async def test_what_was_missed_is_found_at_the_look_at_all(
    guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    guests.show(ONE, b"\nREADY\n")
    async with guests.followed():
        await guests.until(ONE)

    class Deaf:
        async def written(self, timeout_s: float) -> set[str] | None:
            await asyncio.sleep(0)
            return None

        def close(self) -> None:
            pass

    guests.show(TWO, b"\nREADY\n")
    monkeypatch.setattr(console_follow, "FolderWatch", lambda folder: Deaf())
    async with guests.followed():
        await guests.until(ONE, TWO)


async def test_without_a_watch_all_are_looked_at_often(
    guests: Guests, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(folder: Path) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(console_follow, "FolderWatch", none)
    monkeypatch.setattr(console_follow, "LOOK_S", 0.01)
    async with guests.followed():
        guests.show(ONE, b"\nREADY\n")
        await guests.until(ONE)
    assert "for want of a watch" in caplog.text


async def test_a_log_that_is_gone_keeps_nobody_from_being_found(guests: Guests) -> None:
    guests.logs[ONE].path.unlink()
    guests.show(TWO, b"\nREADY\n")
    async with guests.followed():
        await guests.until(TWO)
