"""Images from files that an operator has put into this node's import folder.

Names come from users, so only what really lies in that folder is given out: no path, no link
that leads elsewhere, nothing but a regular file. The file is not copied: it is read in place, and
stays, unless its name says that it was put there for one import.
"""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import ClassVar

from trivet.contracts.compute.image import ONCE_PREFIX, ImageSourceSpec
from trivet.contracts.compute.image_source import ImageSource, Progress
from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import INVALID, NOT_FOUND, Refused
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model


class FileSourceConfig(Model):
    """`import_dir` is where operators put images."""

    import_dir: Path = Path("/var/lib/trivet/import")


class FileSource:
    """Gives out the files of one folder."""

    name: ClassVar[str] = "file"
    Config: ClassVar[type[Model]] = FileSourceConfig

    def __init__(self, context: DriverContext, config: FileSourceConfig) -> None:
        self._folder = config.import_dir

    def __repr__(self) -> str:
        return f"<FileSource {self._folder}>"

    @classmethod
    async def probe(cls) -> Probe:
        """Always usable: a folder that is missing only means that it has no images."""
        return Probe(usable=True, reason="reads files from a folder", score=10)

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    def accepts(self, source: ImageSourceSpec) -> bool:
        """Files."""
        return source.file is not None

    async def fetch(self, source: ImageSourceSpec, into: Path, progress: Progress) -> Path:
        """The file itself. `Refused` where it is not a file of the import folder."""
        found, size = await asyncio.to_thread(self._find, source.file or "")
        progress(size, size)
        return found

    async def forget(self, source: ImageSourceSpec) -> None:
        """Remove a file that was put into the folder for this import."""
        name = source.file or ""
        if name.startswith(ONCE_PREFIX):
            path = self._folder / name
            await asyncio.to_thread(path.unlink, missing_ok=True)

    def _find(self, name: str) -> tuple[Path, int]:
        try:
            found = (self._folder / name).resolve(strict=True)
            status = found.stat()
        except (OSError, ValueError, RuntimeError) as e:
            raise Refused(
                NOT_FOUND,
                f"there is no file {name!r} in the import folder",
                hint=f"put it into {self._folder} on the node that imports",
            ) from e
        inside = found.is_relative_to(self._folder.resolve())
        if not inside or not stat.S_ISREG(status.st_mode):
            raise Refused(INVALID, f"{name!r} is not a file of the import folder")
        return found, status.st_size


@hookimpl
def trivet_image_sources() -> list[type[ImageSource]]:
    """Files of the import folder."""
    return [FileSource]
