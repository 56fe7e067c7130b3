"""Going through very many things without taking the processor from whoever asks meanwhile.

A look at everything is for safety and in no hurry: it goes on by slices, with pauses that bound
what it costs at any time whatever the number of things. Slices are counted and not timed, so that
a run on a pretended clock is the same each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import TypeVar

from trivet.runtime.clock import Clock

SLICE = 32
PAUSE_S = 0.05

ItemT = TypeVar("ItemT")


async def paced(
    items: Iterable[ItemT], clock: Clock, *, hurry: bool = False
) -> AsyncGenerator[ItemT, None]:
    """Each of `items` (all at the beginning), with a pause after each slice; in a `hurry` with a
    chance for others to run and no more."""
    for number, item in enumerate(list(items), start=1):
        yield item
        if number % SLICE == 0:
            await (asyncio.sleep(0) if hurry else clock.sleep(PAUSE_S))
