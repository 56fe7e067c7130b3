"""A pretended guest's serial line, a shell that echoes what is typed and knows `echo`; its screen.

They are at abstract unix sockets, so that no path is too long and nothing is left behind. As with
QEMU the line serves one client at a time; a second one is turned away at once, where QEMU would
let it wait for ever. The screen speaks as much RFB as a viewer needs to begin.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress

PROMPT = b"~ # "


def _listening(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(8)
    listener.setblocking(False)
    return listener


class FakeLine:
    """The line of one run of a guest. `show` is told everything that the console shows."""

    def __init__(self, show: Callable[[bytes], None]) -> None:
        self.path = f"\0trivet-fake-{secrets.token_hex(8)}"
        self._show = show
        self._client: asyncio.StreamWriter | None = None
        self._typed = b""
        self._listener = _listening(self.path)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def write(self, data: bytes) -> None:
        """The guest shows something."""
        self._show(data)
        if self._client is not None:
            self._client.write(data)

    def close(self) -> None:
        """The guest is gone, and its line with it."""
        self._task.cancel()
        self._listener.close()
        if self._client is not None:
            self._client.close()
        self._client = None

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connected, _ = await loop.sock_accept(self._listener)
            if self._client is not None:
                connected.close()
                continue
            reader, self._client = await asyncio.open_unix_connection(sock=connected)
            task = loop.create_task(self._talk(reader, self._client))
            task.add_done_callback(lambda t: t.cancelled() or t.exception())

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            self._take(data.replace(b"\r", b"\n"))
        writer.close()
        if self._client is writer:
            self._client = None

    def _take(self, data: bytes) -> None:
        self.write(data.replace(b"\n", b"\r\n"))
        *lines, self._typed = (self._typed + data).split(b"\n")
        for line in lines:
            words = line.removeprefix(b"echo ")
            answer = words + b"\r\n" if words != line else b""
            self.write(answer + PROMPT)


class FakeScreen:
    """The screen of one run of a guest: 64 by 48, for any number of viewers."""

    SIZE = (64, 48)

    def __init__(self) -> None:
        self.path = f"\0trivet-fake-{secrets.token_hex(8)}"
        self._listener = _listening(self.path)
        self._viewers: set[asyncio.StreamWriter] = set()
        self._tasks = {asyncio.get_running_loop().create_task(self._serve())}

    def close(self) -> None:
        """The guest is gone, and all who looked at it see that."""
        for task in tuple(self._tasks):
            task.cancel()
        self._listener.close()
        for viewer in self._viewers:
            viewer.close()

    def picture(self) -> bytes:
        """What it shows, as PNG: nothing but black."""
        width, height = self.SIZE
        head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
        rows = zlib.compress(bytes((1 + width) * height))
        chunks = ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d))
            for k, d in chunks
        )

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connected, _ = await loop.sock_accept(self._listener)
            reader, writer = await asyncio.open_unix_connection(sock=connected)
            self._viewers.add(writer)
            task = loop.create_task(self._view(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _view(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            writer.write(b"RFB 003.008\n")
            await reader.readexactly(12)
            writer.write(b"\x01\x01")
            await reader.readexactly(1)
            writer.write(bytes(4))
            await reader.readexactly(1)
            width, height = self.SIZE
            writer.write(
                struct.pack(">HH", width, height) + bytes(16) + struct.pack(">I4s", 4, b"fake")
            )
            await reader.read()
        writer.close()
        self._viewers.discard(writer)
