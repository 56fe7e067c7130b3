"""Being told by the kernel when links of ours, or our nftables rules, change.

Two plain netlink sockets in the namespace where `open` was called. What is told says only that
it is worth looking: one's own changes are told too, and a message that was lost (the socket's
buffer ran over) counts as one.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Iterator

NETLINK_NETFILTER = 12
RTMGRP_LINK = 1
NFT_GROUP = 1 << 6
RTM_NEWLINK, RTM_DELLINK = 16, 17
NFT_DELETIONS = {(10 << 8) | kind for kind in (2, 5, 8)}  # of a table, a chain, a rule
IFLA_IFNAME, IFLA_MTU, IFLA_MASTER = 3, 4, 10
IFF_UP = 1
BUFFER_BYTES = 1 << 20

Seen = tuple[int, bytes, bytes]


class _Watch:
    """One netlink socket, and whether something was told since the last look."""

    def __init__(self, protocol: int, group: int) -> None:
        self._protocol = protocol
        self._group = group
        self._socket: socket.socket | None = None
        self._told = asyncio.Event()

    def open(self) -> None:
        """Listen from now on."""
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, self._protocol)
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
        made.bind((0, self._group))
        self._socket = made
        asyncio.get_running_loop().add_reader(made, self._read)

    def close(self) -> None:
        """Listen no more."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    async def changed(self) -> None:
        """Return when something was told since the last call returned."""
        await self._told.wait()
        self._told.clear()

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            # The buffer ran over: what was lost may have been anything.
            self._told.set()
            return
        if any(self._concerns(kind, body) for kind, body in messages(data)):
            self._told.set()

    def _concerns(self, kind: int, body: bytes) -> bool:
        raise NotImplementedError


class LinkWatch(_Watch):
    """Tells when a link whose name begins with `prefix` comes or goes, is set up or down, or
    gets another master or MTU."""

    def __init__(self, prefix: str) -> None:
        super().__init__(socket.NETLINK_ROUTE, RTMGRP_LINK)
        self._prefix = prefix.encode()
        self._seen: dict[bytes, Seen] = {}

    def _concerns(self, kind: int, body: bytes) -> bool:
        family, _, _, _, flags, _ = struct.unpack_from("=BBHiII", body)
        if kind not in (RTM_NEWLINK, RTM_DELLINK) or family != socket.AF_UNSPEC:
            return False
        told = dict(attributes(body[16:]))
        name = told.get(IFLA_IFNAME, b"").rstrip(b"\0")
        if not name.startswith(self._prefix):
            return False
        if kind == RTM_DELLINK:
            self._seen.pop(name, None)
            return True
        now = (flags & IFF_UP, told.get(IFLA_MASTER, b""), told.get(IFLA_MTU, b""))
        before = self._seen.get(name)
        self._seen[name] = now
        return before != now


class RulesWatch(_Watch):
    """Tells when a table, or a part of it, is deleted."""

    def __init__(self, table: str) -> None:
        super().__init__(NETLINK_NETFILTER, NFT_GROUP)
        self._table = table.encode()

    def _concerns(self, kind: int, body: bytes) -> bool:
        # The first attribute of tables, chains and rules alike names the table.
        names = (v.rstrip(b"\0") for n, v in attributes(body[4:]) if n == 1)
        return kind in NFT_DELETIONS and self._table in names


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The netlink messages in a datagram: type and body."""
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if length < 16:
            return
        yield kind, data[16:length]
        data = data[_aligned(length) :]


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in a message's body: type and value."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3


class ProcessWatch:
    """Tells when one of some processes ends."""

    def __init__(self) -> None:
        self._descriptors: dict[int, int] = {}
        self._told = asyncio.Event()

    def add(self, pid: int) -> None:
        """Watch a process too; one that is gone already is told at once."""
        if pid in self._descriptors:
            return
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._told.set()
            return
        self._descriptors[pid] = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._ended, pid)

    def close(self) -> None:
        """Watch none any more."""
        for pid in list(self._descriptors):
            self._forget(pid)

    async def changed(self) -> None:
        """Return when a process ended since the last call returned."""
        await self._told.wait()
        self._told.clear()

    def _ended(self, pid: int) -> None:
        self._forget(pid)
        self._told.set()

    def _forget(self, pid: int) -> None:
        descriptor = self._descriptors.pop(pid)
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
