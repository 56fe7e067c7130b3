"""Serial consoles, shared: one connection to each guest's line, and all who look at it.

QEMU's end takes one client at a time, so the agent is that client, and tells what comes to every
viewer; what viewers type goes down the same line. What the line shows is recorded by QEMU itself
(`Hypervisor.console_log`), whether or not anybody looks. Whoever reads too slowly is let go: the
guest never waits for a viewer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from trivet.contracts.errors import TOO_MANY, UNAVAILABLE, Retry
from trivet.contracts.model import ResourceId
from trivet.runtime.streams import CHUNK_BYTES, Pump, copy, until_one_ends

VIEWERS_MAX = 16
"""Viewers of one line."""

BEHIND_BYTES = 1024 * 1024
"""How far a viewer may be behind."""

PathOf = Callable[[ResourceId], Awaitable[str]]


class Consoles:
    """The serial lines of this node that somebody looks at. `path_of` gives their sockets."""

    def __init__(self, path_of: PathOf) -> None:
        self._path_of = path_of
        self._lines: dict[ResourceId, Line] = {}
        self._joining = asyncio.Lock()

    async def open(self, id_: ResourceId) -> Pump:
        """Join the line of a running domain; raises what `path_of` does, and `Retry`."""
        async with self._joining:
            line = self._lines.get(id_)
            if line is None or line.ended:
                line = await self._connect(id_)
                self._lines[id_] = line
            viewer = line.join()

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await until_one_ends(line.type_from(reader), viewer.show(writer))
            finally:
                if line.leave(viewer) and self._lines.get(id_) is line:
                    del self._lines[id_]

        return pump

    async def _connect(self, id_: ResourceId) -> Line:
        path = await self._path_of(id_)
        try:
            reader, writer = await asyncio.open_unix_connection(path)
        except OSError as error:
            detail = f"the console of {id_} does not answer: {error.strerror}"
            raise Retry(UNAVAILABLE, detail, retry_after_s=1) from error
        return Line(reader, writer)


class Viewer:
    """What one viewer has not yet been shown."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self._behind = 0
        self._ended = False

    def tell(self, data: bytes) -> None:
        """More to show; b'' is the end. One that is too far behind is at its end, too."""
        if self._ended:
            return
        self._behind += len(data)
        self._ended = not data or self._behind > BEHIND_BYTES
        self._waiting.put_nowait(b"" if self._ended else data)

    async def show(self, writer: asyncio.StreamWriter) -> None:
        """Write what comes until the end."""
        with suppress(ConnectionError):
            while data := await self._waiting.get():
                writer.write(data)
                await writer.drain()
                self._behind -= len(data)


class Line:
    """A connection to one guest's serial line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._viewers: set[Viewer] = set()
        self._task = asyncio.create_task(self._read(reader))

    @property
    def ended(self) -> bool:
        """Whether the guest's side has closed it."""
        return self._task.done()

    def join(self) -> Viewer:
        """A new viewer. `Retry(TOO_MANY)` where there are too many."""
        if len(self._viewers) >= VIEWERS_MAX:
            raise Retry(TOO_MANY, f"{VIEWERS_MAX} look at this console already", retry_after_s=10)
        viewer = Viewer()
        self._viewers.add(viewer)
        return viewer

    def leave(self, viewer: Viewer) -> bool:
        """One viewer less; with the last the connection is closed, and True."""
        self._viewers.discard(viewer)
        if self._viewers:
            return False
        self._task.cancel()
        self._writer.close()
        return True

    async def type_from(self, reader: asyncio.StreamReader) -> None:
        """Send down the line what a viewer types, until it goes."""
        await copy(reader, self._writer)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            with suppress(ConnectionError):
                while data := await reader.read(CHUNK_BYTES):
                    for viewer in self._viewers:
                        viewer.tell(data)
        finally:
            for viewer in self._viewers:
                viewer.tell(b"")
