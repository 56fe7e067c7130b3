"""A replica's hashes where the disk answers some reads with an error."""

from __future__ import annotations

import errno
import os
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
    pread = os.pread

    def bad(file: int, length: int, offset: int) -> bytes:
        if offset == 2 * BLOCK:
            raise OSError(error, "bad")
        return pread(file, length, offset)

    monkeypatch.setattr(os, "pread", bad)
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
