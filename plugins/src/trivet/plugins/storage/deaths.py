"""Deaths of the daemons of a node, told as they happen.

The kernel says that a process has ended through its pidfd, at once and at no cost until then. So
a server or a storage daemon that dies under a guest that writes nothing is found before its next
write waits for it. What is told is no more than which volume to look at.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from trivet.contracts.model import ResourceId
from trivet.plugins.storage.node_process import Daemon, lives
from trivet.plugins.storage.sockets import Socket


class Deaths:
    """Watches daemons until they end. `told` is called in the loop with the volume of one that
    did, whoever ended it."""

    def __init__(self, told: Callable[[ResourceId], None]) -> None:
        self._told = told
        self._watched: dict[Daemon, int] = {}

    def watch(self, socket: Socket) -> None:
        """Tell when the daemon behind a socket ends; one that is watched already is so once."""
        daemon = socket.daemon
        if daemon is None or daemon in self._watched:
            return
        try:
            handle = os.pidfd_open(daemon.pid)
        except ProcessLookupError:
            self._told(socket.volume)
            return
        self._watched[daemon] = handle
        loop = asyncio.get_running_loop()
        # Where the number is another process's by now, its end is told too soon: a look too many.
        loop.add_reader(handle, self._ended, daemon, socket.volume)
        if not lives(daemon):
            self._ended(daemon, socket.volume)

    def close(self) -> None:
        """Watch no more."""
        for daemon in list(self._watched):
            self._forget(daemon)

    def _ended(self, daemon: Daemon, volume: ResourceId) -> None:
        if self._forget(daemon):
            self._told(volume)

    def _forget(self, daemon: Daemon) -> bool:
        handle = self._watched.pop(daemon, None)
        if handle is None:
            return False
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
        return True
