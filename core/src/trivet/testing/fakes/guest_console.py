"""A pretended guest's serial line: a shell that echoes what is typed and knows `echo`.

It is at an abstract unix socket, so that no path is too long and nothing is left behind. As with
QEMU one client is served at a time; a second one is turned away at once, where QEMU would let it
wait for ever.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable

PROMPT = b"~ # "


class FakeLine:
    """The line of one run of a guest. `show` is told everything that the console shows."""

    def __init__(self, show: Callable[[bytes], None]) -> None:
        self.path = f"\0trivet-fake-{secrets.token_hex(8)}"
        self._show = show
        self._client: asyncio.StreamWriter | None = None
        self._typed = b""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self.path)
        listener.listen(8)
        listener.setblocking(False)
        self._listener = listener
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
