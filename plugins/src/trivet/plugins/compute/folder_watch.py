"""Tells which files of a folder were written to, as the kernel tells it (inotify).

It is a hint and no more: whoever uses it also looks at everything from time to time, and looks
often where the kernel gives no more watches (`fs.inotify.max_user_instances`). Python has no
inotify of its own, so libc is asked; a watch ends with its descriptor.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

IN_MODIFY = 0x2
IN_Q_OVERFLOW = 0x4000
IN_ONLYDIR = 0x01000000
_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 * 1024


class FolderWatch:
    """A watch of one folder. Raises `OSError` where the kernel gives none."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = _checked(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            path = os.fsencode(folder)
            _checked(libc.inotify_add_watch(self._descriptor, path, IN_MODIFY | IN_ONLYDIR))
        except OSError:
            os.close(self._descriptor)
            raise

    async def written(self, timeout_s: float) -> set[str] | None:
        """The names of the files that were written to since the last call, once there is one;
        none at all after `timeout_s`. None: too many to be told."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._descriptor, readable.set)
        try:
            async with asyncio.timeout(timeout_s):
                await readable.wait()
        except TimeoutError:
            return set()
        finally:
            loop.remove_reader(self._descriptor)
        events = list(_events(os.read(self._descriptor, _READ_BYTES)))
        if any(mask & IN_Q_OVERFLOW for mask, _ in events):
            return None
        return {name for _, name in events}

    def close(self) -> None:
        """End the watch."""
        os.close(self._descriptor)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _events(data: bytes) -> Iterator[tuple[int, str]]:
    """Mask and name of each event (inotify(7), struct inotify_event)."""
    at = 0
    while at < len(data):
        _, mask, _, length = _EVENT.unpack_from(data, at)
        at += _EVENT.size
        yield mask, os.fsdecode(data[at : at + length].rstrip(b"\0"))
        at += length
