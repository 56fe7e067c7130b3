"""Hears what the kernel tells of changes of rules, and knows which of them are not ours.

A commit is told as one message an object, each with the table's name, and one at the end that
says who did it. What others do to their own tables is nothing to us; what anybody but us does to
ours is `disturbed`. Messages that were lost count as a disturbance: looking costs little.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct
from collections import deque

NETLINK_NETFILTER = 12
NFTABLES_GROUP = 7
NFTABLES = 10
NEWGEN = 15
BUFFER_BYTES = 1 << 23
RECEIVE_BYTES = 1 << 18
KNOWN_PIDS = 64
SO_RCVBUFFORCE = 33


def opened() -> socket.socket:
    """A socket that hears of all changes in the namespace of the calling thread."""
    link = socket.socket(
        socket.AF_NETLINK,
        socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
        NETLINK_NETFILTER,
    )
    with contextlib.suppress(PermissionError):
        link.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    link.bind((0, 1 << (NFTABLES_GROUP - 1)))
    return link


class RuleWatch:
    """Tells when somebody else touched the table `table`. `by` says who, the last time."""

    def __init__(self, link: socket.socket, table: str) -> None:
        self._link = link
        self._table = table.encode() + b"\0"
        self._ours: deque[int] = deque(maxlen=KNOWN_PIDS)
        self._touched = False
        self.disturbed = asyncio.Event()
        self.by = ""
        asyncio.get_running_loop().add_reader(link.fileno(), self.read)

    def close(self) -> None:
        """Hear no more."""
        asyncio.get_running_loop().remove_reader(self._link.fileno())
        self._link.close()

    def ours(self, pid: int) -> None:
        """What the process (or the socket) of that number does is our own doing."""
        self._ours.append(pid)

    def read(self) -> None:
        """Take in what has been told."""
        while True:
            try:
                data = self._link.recv(RECEIVE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._disturb("somebody (messages were lost)")
                continue
            self._take(data)

    def _take(self, data: bytes) -> None:
        at = 0
        while at + 20 <= len(data):
            length, type_, _, _, port = struct.unpack_from("=IHHII", data, at)
            if type_ >> 8 == NFTABLES:
                if type_ & 0xFF == NEWGEN:
                    self._ended(data[at + 20 : at + length], port)
                elif not self._touched:
                    # The first attribute of every object names its table.
                    (size,) = struct.unpack_from("=H", data, at + 20)
                    self._touched = data[at + 24 : at + 20 + size] == self._table
            at += max((length + 3) & ~3, 16)

    def _ended(self, body: bytes, port: int) -> None:
        """A commit is told to its end: whose was it?"""
        touched, self._touched = self._touched, False
        facts = _attributes(body)
        pid = int.from_bytes(facts.get(2, b"\0"), "big")
        if touched and not {pid, port} & set(self._ours):
            name = facts.get(3, b"?").rstrip(b"\0").decode(errors="replace")
            self._disturb(f"{name} (process {pid})")

    def _disturb(self, by: str) -> None:
        self.by = by
        self.disturbed.set()


def _attributes(body: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(body):
        size, type_ = struct.unpack_from("=HH", body, at)
        found[type_ & 0x3FFF] = body[at + 4 : at + size]
        at += max((size + 3) & ~3, 4)
    return found
