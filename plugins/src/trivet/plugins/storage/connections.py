"""The connections of another process, seen and ended from outside.

A storage daemon that waits for a replica that hangs may not answer its monitor either; what is
left then is the kernel: `pidfd_getfd` gives a copy of the daemon's socket, which tells to whom it
is connected and whether the other end is still there, and through which the connection is shut
down, so that whatever waits for it fails. Nothing here ever waits for the daemon or its peer.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from trivet.plugins.storage.node_process import PROC, Daemon, lives

SYS_PIDFD_GETFD = 438
SOCKET_LINK = "socket:["
POLLRDHUP = 0x2000
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Connection:
    """A connected socket of a daemon: which one it is, to whom, and whether that end is there."""

    inode: int
    peer: str
    alive: bool


def connections(daemon: Daemon) -> list[Connection]:
    """All connected sockets of a daemon; none of one that is gone."""
    return [
        Connection(inode, peer, _other_end_is_there(copy))
        for inode, copy in _sockets(daemon)
        if (peer := _peer(copy))
    ]


def shut_down(daemon: Daemon, peer: str) -> int:
    """End a daemon's connections to that peer at once; tells how many there were."""
    ended = 0
    for _, copy in _sockets(daemon):
        if _peer(copy) == peer:
            with suppress(OSError):  # ended meanwhile
                copy.shutdown(socket.SHUT_RDWR)
                ended += 1
    return ended


def _sockets(daemon: Daemon) -> Iterator[tuple[int, socket.socket]]:
    """Each socket of a daemon as a copy of ours, closed when the next is asked for."""
    try:
        handle = os.pidfd_open(daemon.pid)
    except ProcessLookupError:
        return
    try:
        if not lives(daemon):
            return
        for inode, number in _socket_numbers(daemon):
            copied = _libc.syscall(SYS_PIDFD_GETFD, handle, number, 0)
            if copied < 0:
                continue  # closed meanwhile
            with socket.socket(fileno=copied) as copy:
                yield inode, copy
    finally:
        os.close(handle)


def _socket_numbers(daemon: Daemon) -> Iterator[tuple[int, int]]:
    folder = PROC / str(daemon.pid) / "fd"
    try:
        numbers = os.listdir(folder)
    except OSError:
        return
    for number in numbers:
        with suppress(OSError):
            link = os.readlink(folder / number)
            if link.startswith(SOCKET_LINK):
                yield int(link[len(SOCKET_LINK) : -1]), int(number)


def _peer(copy: socket.socket) -> str:
    """A unix socket's path, or `host port`; '' for what is not connected to either."""
    try:
        peer = copy.getpeername()
    except OSError:
        return ""
    if isinstance(peer, tuple):
        return f"{ipaddress.ip_address(peer[0])} {peer[1]}"
    return str(peer) if isinstance(peer, str) else ""


def _other_end_is_there(copy: socket.socket) -> bool:
    poll = select.poll()
    poll.register(copy, POLLRDHUP)
    return not poll.poll(0)
