"""Hashes of a replica's blocks, by which replicas on different hosts are compared.

Holes are not read, and a block of zeroes is told as '' whether it is a hole or not, so that a
thin replica equals one that has its zeroes written; one that the disk answers with an error is
told as that, and differs from all others. BLAKE2 is the hash of Python's own library that no
chance, and nobody's intent, lets two blocks share. Everything here blocks, and reads only when the
disks have nothing else to do.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from trivet.contracts.storage.replication import UNREADABLE

SYS_IOPRIO_SET = 251
THIS_THREAD, IDLE_CLASS = 1, 3 << 13
DIGEST_BYTES = 16
_libc = ctypes.CDLL(None, use_errno=True)


def read_when_idle() -> None:
    """Let the calling thread's reads of disks wait for all others'."""
    _libc.syscall(SYS_IOPRIO_SET, THIS_THREAD, 0, IDLE_CLASS)


def is_blank(path: Path) -> bool:
    """Whether a file has nothing but a hole."""
    return not data_extents(path, 0, path.stat().st_size)


def data_extents(path: Path, begin: int, end: int) -> list[tuple[int, int]]:
    """Begin and end of what may be other than zero in that part of a file."""
    with path.open("rb") as file:
        return list(_data(file.fileno(), begin, end))


def _data(file: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    while begin < end:
        try:
            first = os.lseek(file, begin, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        if first >= end:
            return
        begin = min(os.lseek(file, first, os.SEEK_HOLE), end)
        yield first, begin


def hash_blocks(path: Path, begin: int, end: int, block_bytes: int) -> tuple[str, ...]:
    """The hash of each block of that part of a file; '' for zeroes. The last may be shorter."""
    count = max(0, -(-(end - begin) // block_bytes))
    hashes = [""] * count
    zeroes = bytes(block_bytes)
    with path.open("rb", buffering=0) as file:
        done = -1
        for first, last in _data(file.fileno(), begin, end):
            for number in range((first - begin) // block_bytes, -(-(last - begin) // block_bytes)):
                if number <= done:
                    continue
                done = number
                at = begin + number * block_bytes
                try:
                    data = os.pread(file.fileno(), min(block_bytes, end - at), at)
                except OSError as error:
                    if error.errno != errno.EIO:
                        raise
                    hashes[number] = UNREADABLE
                    continue
                if data != zeroes[: len(data)]:
                    hashes[number] = hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()
    return tuple(hashes)
