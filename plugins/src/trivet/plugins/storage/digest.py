"""Hashes of a replica's blocks, by which replicas on different hosts are compared.

Holes are not read, and a block of zeroes is told as '' whether it is a hole or not, so that a
thin replica equals one that has its zeroes written; one that the disk answers with an error is
told as that, and differs from all others. What is hashed is read from the disk, not from the page
cache, which would hide for weeks that the disk has it no more. BLAKE2 is the hash of Python's own
library that no chance, and nobody's intent, lets two blocks share. Everything here blocks, and
reads only when the disks have nothing else to do.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trivet.contracts.storage.replication import UNREADABLE

SYS_IOPRIO_SET = 251
THIS_THREAD, IDLE_CLASS = 1, 3 << 13
DIGEST_BYTES = 16
READ_BYTES = 1024 * 1024
ALIGNED = 4096
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
    at_once = max(READ_BYTES // block_bytes, 1)
    direct = begin % ALIGNED == block_bytes % ALIGNED == 0
    with _opened(path, direct=direct) as file, mmap.mmap(-1, at_once * block_bytes) as room:
        done = 0
        for first, last in _data(file, begin, end):
            number = max((first - begin) // block_bytes, done)
            done = -(-(last - begin) // block_bytes)
            for some in range(number, done, at_once):
                blocks = range(some, min(some + at_once, done))
                _hash(file, room, begin, end, block_bytes, blocks, hashes)
    return tuple(hashes)


def _hash(
    file: int,
    room: mmap.mmap,
    begin: int,
    end: int,
    block_bytes: int,
    blocks: range,
    hashes: list[str],
) -> None:
    """Hash neighbouring blocks that are read at once; where that fails, one by one."""
    at = begin + blocks[0] * block_bytes
    wanted = len(blocks) * block_bytes
    try:
        with memoryview(room) as all_of_it, all_of_it[:wanted] as view:
            got = os.preadv(file, [view], at)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        if len(blocks) == 1:
            hashes[blocks[0]] = UNREADABLE
            return
        for number in blocks:
            _hash(file, room, begin, end, block_bytes, range(number, number + 1), hashes)
        return
    got = min(got, end - at)
    for number in blocks:
        from_ = (number - blocks[0]) * block_bytes
        data = room[from_ : max(from_, min(from_ + block_bytes, got))]
        if data.count(0) != len(data):
            hashes[number] = hashlib.blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


@contextmanager
def _opened(path: Path, *, direct: bool) -> Iterator[int]:
    """A file for reading, past the page cache where that can be."""
    flags = os.O_RDONLY | (os.O_DIRECT if direct else 0)
    try:
        file = os.open(path, flags)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)
