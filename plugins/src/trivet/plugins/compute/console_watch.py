"""Reads the serial consoles' logs: what a guest has shown, and whether it is ready.

A guest is ready when its console has shown a line READY or a login prompt since it was last
(re)started; a marker file beside the log remembers it, so that a restarted driver knows too.
A guest writes as much as it likes: a log over its bound is cut, and only its end is kept. (QEMU
only ever appends, so cutting a log that it has open is safe.)
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path

LOG_BOUND_BYTES = 4 * 1024 * 1024
KEPT_BYTES = 256 * 1024
READ_AT_ONCE_BYTES = 256 * 1024
_OVERLAP_BYTES = 64

_READY = re.compile(rb"(?:^|[\r\n])(?:\x1b\[[0-9;?]*[A-Za-z])*READY\s*[\r\n]|\blogin: ")


def shows_ready(text: bytes) -> bool:
    """Whether `text` has a line READY or a login prompt."""
    return _READY.search(text) is not None


@dataclass
class ConsoleLog:
    """The log of one guest's console at `path`; the files beside it have its name.

    It may be used from several threads: a start must not fall into a look.
    """

    path: Path
    seen_bytes: int = 0
    carried: bytes = b"\n"
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def marker(self) -> Path:
        """Exists while the guest is known to be ready."""
        return self.path.with_suffix(".ready")

    @property
    def older(self) -> Path:
        """The kept end of what was cut off."""
        return self.path.with_suffix(".old")

    @property
    def ready(self) -> bool:
        """Whether the guest has said that it is ready."""
        return self.marker.exists()

    def start(self) -> None:
        """The guest is about to start: forget what it has shown."""
        with self.lock:
            self.marker.unlink(missing_ok=True)
            self.older.unlink(missing_ok=True)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(b"")
            self.seen_bytes, self.carried = 0, b"\n"

    def restart(self) -> None:
        """The guest boots again: what it has shown is kept and says nothing about this boot."""
        with self.lock:
            self.seen_bytes, self.carried = self._size(), b"\n"
            self.marker.unlink(missing_ok=True)

    def remove(self) -> None:
        """Leave nothing."""
        for path in (self.marker, self.older, self.path):
            path.unlink(missing_ok=True)

    def look(self) -> bool:
        """Read what is new; True when this look found the guest ready. Cuts a long log."""
        with self.lock:
            found = not self.ready and self._found()
            if found:
                self.marker.touch()
            if self._size() > LOG_BOUND_BYTES:
                self._cut()
        return found

    def tail(self, max_bytes: int) -> bytes:
        """The last `max_bytes` of what was shown."""
        newest = _end_of(self.path, max_bytes)
        missing = max_bytes - len(newest)
        return _end_of(self.older, missing) + newest if missing > 0 else newest

    def _found(self) -> bool:
        if self._size() <= self.seen_bytes:
            return False
        with self.path.open("rb") as file:
            file.seek(self.seen_bytes)
            text = file.read(READ_AT_ONCE_BYTES)
        self.seen_bytes += len(text)
        # A word may come in two halves: the end of this read is looked at again with the next.
        found = shows_ready(self.carried + text)
        self.carried = text[-_OVERLAP_BYTES:]
        return found

    def _cut(self) -> None:
        end = _end_of(self.path, KEPT_BYTES)
        self.older.write_bytes(end)
        os.truncate(self.path, 0)
        self.seen_bytes = 0

    def _size(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0


def _end_of(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - max_bytes))
            return file.read(max_bytes)
    except FileNotFoundError:
        return b""
