"""The law for image sources: how an image's bytes come to a node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from trivet.contracts.compute.image import ImageSourceSpec
from trivet.contracts.driver import Driver

Progress = Callable[[int, int | None], None]
"""Called with bytes so far and bytes in all (None: not known)."""


class ImageSource(Driver, Protocol):
    """Brings the bytes of an image to a local file.

    `fetch` returns a file that the caller may read but not change: a new one in `into`, or
    the source itself where it is local. It never reads outside what its configuration allows.
    A cut fetch leaves nothing behind or resumes. Raises `Refused` where the source is wrong,
    `Retry` where it is only unreachable.
    """

    def accepts(self, source: ImageSourceSpec) -> bool:
        """Whether this driver is the one for such a source."""
        ...

    async def fetch(self, source: ImageSourceSpec, into: Path, progress: Progress) -> Path:
        """Bring the bytes; returns the path of the local file."""
        ...
