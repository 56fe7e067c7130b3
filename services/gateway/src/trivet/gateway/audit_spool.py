"""Audit entries on disk, from before a call is made until the trail has its record.

What is about to be done is written down first, what became of it before the caller is answered.
So whatever ends this process, a caller that was answered is in the trail, and a call whose
outcome nobody knows any more is there as `unknown`. What is written outlives the process at
once; `saved` waits until it outlives the machine, one fsync for all who wait at that moment.

One line a note; the file is emptied when nothing is under way, and written anew when it has
grown. A line that was cut by a crash is the last one, and was not answered.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from trivet.contracts.errors import UNAVAILABLE, Retry
from trivet.contracts.model import Model
from trivet.contracts.security.audit import AuditEntry

log = logging.getLogger(__name__)

GROWN_BYTES = 4 * 1024 * 1024
UNKNOWN = "unknown"


class Note(Model):
    """A line: a call that is begun, or what became of it."""

    what: Literal["begun", "done"]
    entry: AuditEntry


class AuditSpool:
    """The file of one gateway process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        self.left = _entries_in(file)
        """What an earlier process left behind, in order; to be sent first."""
        self._open: dict[str, Note] = {}
        self._descriptor = self._made(Note(what="done", entry=e) for e in self.left)
        self._size = os.fstat(self._descriptor).st_size
        self._open |= {e.request_id: Note(what="done", entry=e) for e in self.left}
        self._saving: asyncio.Task[None] | None = None
        self._unsaved = 0

    def note(self, note: Note) -> None:
        """Write a line down: from here on it outlives this process. Raises `Retry` where it
        can't be written: nothing of it is in the file then, though an end is known here."""
        line = note.model_dump_json().encode() + b"\n"
        try:
            _write_whole(self._descriptor, line)
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            if note.what == "done":
                self._open[note.entry.request_id] = note
            detail = f"the audit trail can't be written down here: {error.strerror}"
            hint = f"nothing is changed without it; look at the disk of {self._file.parent}"
            raise Retry(UNAVAILABLE, detail, hint=hint) from error
        self._size += len(line)
        self._unsaved += 1
        self._open[note.entry.request_id] = note

    def under_way(self, request_id: str) -> bool:
        """Whether that call is begun, and nothing is written of its end."""
        note = self._open.get(request_id)
        return note is not None and note.what == "begun"

    def sent(self, entries: Iterable[AuditEntry]) -> None:
        """The trail has these: they need no place here any more."""
        for entry in entries:
            self._open.pop(entry.request_id, None)
        if not self._open and self._size:
            os.ftruncate(self._descriptor, 0)
            self._size = 0
        elif self._size > GROWN_BYTES:
            old = self._descriptor
            self._descriptor = self._made(self._open.values())
            self._size = os.fstat(self._descriptor).st_size
            os.close(old)

    async def saved(self) -> None:
        """Wait until all that was written outlives the machine, too."""
        while self._unsaved:
            if self._saving is None:
                self._saving = asyncio.create_task(self._save())
            await asyncio.shield(self._saving)

    def close(self) -> None:
        """Let go of the file; what is in it stays."""
        os.close(self._descriptor)

    async def _save(self) -> None:
        try:
            self._unsaved = 0
            await asyncio.to_thread(os.fdatasync, self._descriptor)
        finally:
            self._saving = None

    def _made(self, notes: Iterable[Note]) -> int:
        """A new file with these lines in the place of the old one, open for appending."""
        partial = self._file.with_name(f"{self._file.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(partial, flags, 0o600)
        for note in notes:
            os.write(descriptor, note.model_dump_json().encode() + b"\n")
        os.fsync(descriptor)
        partial.rename(self._file)
        return descriptor


def _write_whole(descriptor: int, line: bytes) -> None:
    """Write a line. Raises `OSError` where not all of it found space."""
    if os.write(descriptor, line) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _entries_in(file: Path) -> list[AuditEntry]:
    """What a file tells, each call once: its end, or that nobody knows how it ended."""
    found: dict[str, AuditEntry] = {}
    lines = file.read_bytes().splitlines() if file.exists() else []
    for line in lines:
        try:
            note = Note.model_validate_json(line)
        except ValidationError:
            log.warning("a line of %s can't be read: it was cut", file)
            continue
        found[note.entry.request_id] = note.entry
        if note.what == "begun":
            detail = "the gateway ended before it knew"
            unknown = note.entry.model_copy(update={"outcome": UNKNOWN, "detail": detail})
            found[note.entry.request_id] = unknown
    return list(found.values())
