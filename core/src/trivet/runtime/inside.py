"""What a running process is at: `kill -USR1` makes it say so in its log.

One line, `inside: {...}`, counts its tasks by what they run. An operator sees by it where work
has piled up; the leak checker compares two of them. It changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections import Counter

log = logging.getLogger(__name__)

PREFIX = "inside: "


def tell_when_asked() -> None:
    """From now on SIGUSR1 makes this process, whose loop runs, say what it is at."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell)


def tell() -> None:
    """Say in the log, at whatever level is shown, what the tasks of this loop are."""
    told = {"tasks": dict(sorted(tasks().items()))}
    log.critical("%s%s", PREFIX, json.dumps(told))


def tasks() -> Counter[str]:
    """The tasks of the running loop that are not over, by the name of what they run."""
    return Counter(
        getattr(task.get_coro(), "__qualname__", repr(task.get_coro()))
        for task in asyncio.all_tasks()
    )
