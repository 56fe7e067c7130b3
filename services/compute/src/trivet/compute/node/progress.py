"""Tells how far an import is, in the image's status, at most once a second."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from trivet.contracts.compute.image import Image
from trivet.contracts.compute.image_source import Progress
from trivet.runtime.clock import Clock
from trivet.runtime.collection import Collection

TELL_EVERY_S = 1.0


class ProgressTeller:
    """Takes counts of bytes from drivers and writes per cents into the image."""

    def __init__(self, images: Collection[Image], image: Image, clock: Clock) -> None:
        self._images = images
        self._image = image
        self._clock = clock
        self._pct = 0
        self._task: asyncio.Task[None] | None = None

    def part(self, first_pct: int, last_pct: int) -> Progress:
        """A callback for a step that goes from `first_pct` to `last_pct` of the whole."""

        def tell(done: int, total: int | None) -> None:
            share = min(1.0, done / total) if total else 0.0
            self._pct = max(self._pct, int(first_pct + share * (last_pct - first_pct)))

        return tell

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tell())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _tell(self) -> None:
        key = self._images.key_of(self._image)
        while True:
            await self._clock.sleep(TELL_EVERY_S)
            await self._images.mutate(key, self._shown)

    def _shown(self, image: Image) -> Image:
        return image.with_status(progress_pct=self._pct)
