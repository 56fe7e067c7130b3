"""Logs of processes that outlive whoever started them, bounded in size.

A process writes to its file itself (in append mode), so that it needs nobody to read a pipe. When
the file grows over the bound, its content is copied beside it and the file is cut short; what is
written between the two steps is lost, which a log can bear and a pipe's dead reader could not.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import BinaryIO

LARGEST_BYTES = 20 * 1024 * 1024


class LogFolder:
    """The logs of an instance, one file a process, and one older file beside it."""

    def __init__(self, folder: Path, largest_bytes: int = LARGEST_BYTES) -> None:
        self._folder = folder
        self._largest_bytes = largest_bytes

    def open(self, process: str) -> BinaryIO:
        """The file that a process shall write to."""
        path = self._folder / f"{process}.log"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        return os.fdopen(descriptor, "wb", buffering=0)

    def rotate(self) -> None:
        """Cut what is over the bound."""
        for path in self._folder.glob("*.log"):
            if path.stat().st_size > self._largest_bytes:
                shutil.copyfile(path, path.with_suffix(".log.1"))
                os.truncate(path, 0)


def tail(path: Path, lines: int) -> list[str]:
    """The last lines of a log; none where there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 200 * lines))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []
