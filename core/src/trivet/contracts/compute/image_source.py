"""The law for image sources and writers: how an image's bytes come to a node, and to a volume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from trivet.contracts.compute.image import ImageSourceSpec
from trivet.contracts.driver import Driver
from trivet.contracts.model import Model

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


@runtime_checkable
class OnceSource(Protocol):
    """Optional, for a source with files that are there for one import only."""

    async def forget(self, source: ImageSourceSpec) -> None:
        """The import from `source` has ended: remove what was there for it alone. Whatever else
        the source names stays; gone already is fine."""
        ...


class ImageFacts(Model):
    """What a file holds: its format, the size of the disk in it, the digest of its bytes."""

    format: str
    virtual_size_bytes: int
    sha256: str


class ImageWriter(Driver, Protocol):
    """Looks at image files and writes the disks in them to attached volumes.

    Files come from anybody: a file that refers to another one (a backing file, an external
    data file) is `Refused(INVALID)`, and so is a format other than raw or qcow2.
    """

    async def inspect(self, path: Path) -> ImageFacts:
        """What the file holds; reads it wholly. `Refused(INVALID)` where it can't be used."""
        ...

    async def write(
        self, path: Path, format_: str, socket: str, export: str, progress: Progress
    ) -> None:
        """Write the disk in `path` to the NBD export at that unix socket, over whatever the
        export held, and flush it. A cut write is begun anew by calling again. `Retry` where the
        export is not reachable."""
        ...
