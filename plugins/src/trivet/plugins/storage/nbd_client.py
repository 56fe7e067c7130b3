"""A small NBD client, for what the graph's owner asks of exports and no guest does.

It learns an export's size, flushes, writes zeroes (which on a scratch node only mark where), and
reads what a snapshot's copy lacks. It keeps to the fixed newstyle handshake with simple replies,
which qemu-storage-daemon and nbdkit both speak. No guest's payload ever passes here.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trivet.contracts.errors import DRIVER_FAILED, Fatal

MAGIC, REPLY_MAGIC = b"NBDMAGICIHAVEOPT", 0x3E889045565A9
REQUEST_MAGIC, SIMPLE_MAGIC = 0x25609513, 0x67446698
FIXED_NO_ZEROES = 3
OPT_GO = 7
REP_ACK, REP_INFO, REP_ERROR = 1, 3, 1 << 31
CMD_READ, CMD_DISCONNECT, CMD_FLUSH, CMD_ZERO = 0, 2, 3, 6
LENGTH_MAX = 1 << 30


class NbdClient:
    """One connection to one export."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._cookie = 0
        self.size_bytes = 0

    async def handshake(self, export: str) -> None:
        """Choose the export; its size is known then."""
        greeting = await self._reader.readexactly(18)
        if greeting[:16] != MAGIC:
            raise ValueError("no NBD server listens there")
        name = struct.pack(">I", len(export)) + export.encode() + struct.pack(">H", 0)
        option = struct.pack(">II", OPT_GO, len(name))
        self._writer.write(struct.pack(">I", FIXED_NO_ZEROES) + b"IHAVEOPT" + option + name)
        kind = REP_INFO
        while kind != REP_ACK:
            magic, _, kind, length = struct.unpack(">QIII", await self._reader.readexactly(20))
            told = await self._reader.readexactly(length)
            if magic != REPLY_MAGIC or kind & REP_ERROR:
                raise ValueError(f"refused: {told.decode(errors='replace') or hex(kind)}")
            if kind == REP_INFO and told[:2] == b"\0\0":
                self.size_bytes = struct.unpack(">Q", told[2:10])[0]

    async def flush(self) -> None:
        """Have all that was answered written to the disks."""
        await self._ask(CMD_FLUSH, 0, 0)

    async def zero(self, offset: int, length: int) -> None:
        """Write zeroes there."""
        for begin in range(offset, offset + length, LENGTH_MAX):
            await self._ask(CMD_ZERO, begin, min(LENGTH_MAX, offset + length - begin))

    async def read(self, offset: int, length: int) -> bytes:
        """The bytes there."""
        await self._ask(CMD_READ, offset, length)
        return await self._reader.readexactly(length)

    async def _ask(self, command: int, offset: int, length: int) -> None:
        self._cookie += 1
        request = (REQUEST_MAGIC, 0, command, self._cookie, offset, length)
        self._writer.write(struct.pack(">IHHQQI", *request))
        magic, error, _ = struct.unpack(">IIQ", await self._reader.readexactly(16))
        if magic != SIMPLE_MAGIC:
            raise ValueError(f"not a reply: {magic:#x}")
        if error:
            raise OSError(error, f"command {command} failed")

    def close(self) -> None:
        """Say goodbye."""
        self._writer.write(struct.pack(">IHHQQI", REQUEST_MAGIC, 0, CMD_DISCONNECT, 0, 0, 0))
        self._writer.close()


@asynccontextmanager
async def nbd(server: dict[str, str], export: str, *, timeout_s: float) -> AsyncIterator[NbdClient]:
    """A client of that export at that server (in QEMU's words), for at most that time.
    Raises `Fatal` for whatever goes wrong within."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await _dial(server)
            client = NbdClient(reader, writer)
            try:
                await client.handshake(export)
                yield client
            finally:
                client.close()
    except (OSError, TimeoutError, ValueError, EOFError) as error:
        raise Fatal(DRIVER_FAILED, f"NBD export {export}: {error!r}") from error


async def greets(server: dict[str, str], *, timeout_s: float) -> bool:
    """Whether a server says who it is to a new client within that time."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await _dial(server)
            try:
                return bool(await reader.readexactly(len(MAGIC)) == MAGIC)
            finally:
                writer.close()
    except (OSError, TimeoutError, EOFError):
        return False


async def _dial(server: dict[str, str]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a server, as QEMU names it. Raises `OSError`."""
    if server["type"] == "unix":
        return await asyncio.open_unix_connection(server["path"])
    return await asyncio.open_connection(server["host"], int(server["port"]))
