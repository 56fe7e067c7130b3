"""Commands that change an instance take turns: two `up`s at once would start two of everything.

The lock is on the instance's root folder itself, so that it leaves no file behind, and goes with
whoever held it, however that ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trivet.host.failure import failed
from trivet.host.layout import Layout

PATIENCE_S = 600.0
LOOK_S = 0.2


@contextmanager
def turn(
    layout: Layout, say: Callable[[str], None], *, patience_s: float = PATIENCE_S
) -> Iterator[None]:
    """Hold the instance while the block runs. Raises `Fatal` where another command has it for
    longer than `patience_s`. An instance without its root folder is not there: nothing is held."""
    if not layout.root.is_dir():
        yield
        return
    folder = os.open(layout.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _take(folder, layout, say, patience_s)
        yield
    finally:
        os.close(folder)


def _take(folder: int, layout: Layout, say: Callable[[str], None], patience_s: float) -> None:
    deadline, told = time.monotonic() + patience_s, False
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise failed(
                    f"another trivet command has been at work on {layout.root} for long",
                    hint="wait for its end, or end it; then repeat this",
                ) from error
        else:
            return
        if not told:
            say("waiting for another trivet command that is at work here")
            told = True
        time.sleep(LOOK_S)
