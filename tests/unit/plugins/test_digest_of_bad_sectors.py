"""A replica's hashes where the disk answers some reads with an error."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from pathlib import Path

import pytest

from trivet.contracts.model import ResourceId
from trivet.contracts.storage.replication import UNREADABLE, Digest, Extent
from trivet.plugins.storage.digest import hash_blocks
from trivet.storage.domain.differences import differing

BLOCK = 65536
V = ResourceId("volume-1")


@pytest.mark.parametrize("error", [errno.EIO, errno.EBADF])
def test_a_bad_sector_is_told_and_differs_from_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    path = tmp_path / "replica.raw"
    path.write_bytes(b"x" * 4 * BLOCK)
    good = hash_blocks(path, 0, 4 * BLOCK, BLOCK)
    preadv = os.preadv

    def bad(file: int, buffers: list[memoryview], offset: int) -> int:
        if offset <= 2 * BLOCK < offset + len(buffers[0]):
            raise OSError(error, "bad")
        return preadv(file, buffers, offset)

    monkeypatch.setattr(os, "preadv", bad)
    if error != errno.EIO:  # no word of a disk
        with pytest.raises(OSError, match="bad"):
            hash_blocks(path, 0, 4 * BLOCK, BLOCK)
        return
    found = hash_blocks(path, 0, 4 * BLOCK, BLOCK)
    assert found == (*good[:2], UNREADABLE, good[3])

    def digest(hashes: tuple[str, ...]) -> Digest:
        return Digest(volume=V, offset=0, block_bytes=BLOCK, hashes=hashes)

    there = (Extent(offset=2 * BLOCK, length=BLOCK),)
    for other in (good, found):
        assert differing(digest(other), digest(found), 4 * BLOCK) == there


@pytest.mark.parametrize("block", [512, 4096, BLOCK, 3 * BLOCK])
@pytest.mark.parametrize("begin", [0, 3 * BLOCK])
def test_each_block_has_its_hash_however_many_are_read_at_once(
    tmp_path: Path, block: int, begin: int
) -> None:
    """Holes and zeroes are '', also in the middle; the last block may be shorter."""
    path = tmp_path / "replica.raw"
    size = 40 * BLOCK + 1000
    chosen = random.Random(block)
    with path.open("wb") as file:
        file.truncate(size)
        for at in (0, 5 * BLOCK + 4096, 20 * BLOCK, 39 * BLOCK):
            file.seek(at)
            file.write(chosen.randbytes(3 * 4096))
        file.seek(10 * BLOCK)
        file.write(bytes(BLOCK))
        file.seek(size - 10)
        file.write(b"0123456789")
    content = path.read_bytes()[begin:]
    pieces = [content[at : at + block] for at in range(0, len(content), block)]
    wanted = tuple(hashlib.blake2b(p, digest_size=16).hexdigest() if any(p) else "" for p in pieces)
    assert hash_blocks(path, begin, size, block) == wanted
