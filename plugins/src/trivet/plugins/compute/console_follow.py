"""Finds the guests that got ready, by the logs of their consoles.

A log that is written to is looked at as soon as the kernel tells of it (`folder_watch`), and all
of them from time to time. A guest that boots is followed closely; one that is ready may write as
much as it likes, and costs a few looks a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from trivet.contracts.model import ResourceId
from trivet.plugins.compute.console_watch import ConsoleLog
from trivet.plugins.compute.folder_watch import FolderWatch

log = logging.getLogger(__name__)

ALL_LOOK_S = 10.0
"""How often all logs are looked at, while the kernel tells of what is written."""
LOOK_S = 0.5
"""How often they are where it does not; and how often that of a ready guest is, at most."""
APART_S = 0.02
"""The least time between two looks at the log of a guest that boots."""

Logs = Mapping[ResourceId, ConsoleLog]


async def follow(
    folder: Path, logs: Callable[[], Logs], got_ready: Callable[[ResourceId], None]
) -> None:
    """Tell of each guest that got ready, until cancelled; `logs` are those in `folder` by now."""
    watch = _watch_of(folder)
    try:
        while True:
            _look(logs(), got_ready)
            if watch is None:
                await asyncio.sleep(LOOK_S)
            else:
                await _follow(watch, logs, got_ready)
    finally:
        if watch is not None:
            watch.close()


async def _follow(
    watch: FolderWatch, logs: Callable[[], Logs], got_ready: Callable[[ResourceId], None]
) -> None:
    """Look at what is written, until it is time to look at all."""
    loop = asyncio.get_running_loop()
    until = loop.time() + ALL_LOOK_S
    while (left_s := until - loop.time()) > 0:
        written = await watch.written(left_s)
        if written is None:
            return
        concerned = {id_: log for id_, log in logs().items() if log.path.name in written}
        boots = _look(concerned, got_ready)
        if written:
            await asyncio.sleep(APART_S if boots else LOOK_S)


def _look(logs: Logs, got_ready: Callable[[ResourceId], None]) -> bool:
    """Read what is new; whether one of these guests is not ready yet."""
    boots = False
    for id_, console in logs.items():
        try:
            found = console.look()
            boots = boots or not console.ready
        except OSError:
            log.exception("the console log of %s can't be read", id_)
            continue
        if found:
            got_ready(id_)
    return boots


def _watch_of(folder: Path) -> FolderWatch | None:
    try:
        return FolderWatch(folder)
    except OSError as error:
        log.warning("consoles are looked at from time to time, for want of a watch: %s", error)
        return None
