"""Processes that end are told of at once."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from trivet.contracts.model import ResourceId
from trivet.plugins.storage.deaths import Deaths
from trivet.plugins.storage.node_process import Daemon, daemon_of
from trivet.plugins.storage.sockets import Socket

VOLUME = ResourceId("volume-1")
NO_PID = 2**22 - 1
"""The highest that there can be; nothing has it."""


def behind(daemon: Daemon | None) -> Socket:
    return Socket(VOLUME, 1, Path("/nowhere"), daemon)


async def sleeper() -> tuple[asyncio.subprocess.Process, Daemon]:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    daemon = daemon_of(process.pid)
    assert daemon is not None
    return process, daemon


async def test_a_process_that_ends_is_told_once_and_none_that_lives():
    told = asyncio.Queue[ResourceId]()
    deaths = Deaths(told.put_nowait)
    (one, first), (other, second) = await sleeper(), await sleeper()
    try:
        for daemon in (first, first, second):
            deaths.watch(behind(daemon))
        assert told.empty()
        one.kill()
        assert await asyncio.wait_for(told.get(), 10) == VOLUME
        assert told.empty()
        deaths.close()
    finally:
        other.kill()
        await asyncio.gather(one.wait(), other.wait())
    assert told.empty()


async def test_one_that_is_gone_already_is_told_too():
    told = list[ResourceId]()
    deaths = Deaths(told.append)
    deaths.watch(behind(Daemon(pid=NO_PID, argv=("gone",))))
    deaths.watch(behind(Daemon(pid=os.getpid(), argv=("of that number once",))))
    deaths.watch(behind(None))
    assert told == [VOLUME, VOLUME]
    deaths.close()
