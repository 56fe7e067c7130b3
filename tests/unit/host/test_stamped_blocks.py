"""What a guest's stamps say of a disk: the check finds whatever is older, torn, or elsewhere."""

import subprocess

import pytest

from trivet.testing.lab.stamped_blocks import (
    BLOCK,
    BLOCKS,
    SECTOR,
    acked,
    newest_stamp,
    offset_of,
    unlike,
    writer,
    wrong_blocks,
)

STAMPS = range(1000, 1000 + 2 * BLOCKS)
"""Every block is written twice."""


class Disk:
    """Blocks by offset; what was never written is zeros."""

    def __init__(self) -> None:
        self.blocks = {offset_of(stamp): stamped(stamp) for stamp in STAMPS}

    def read(self, offset: int, size: int) -> bytes:
        return self.blocks.get(offset, bytes(size))[:size]


def stamped(stamp: int) -> bytes:
    return f"{stamp:{SECTOR}d}".encode() * (BLOCK // SECTOR)


def torn(old: int, new: int) -> bytes:
    return stamped(new)[:SECTOR] + stamped(old)[SECTOR:]


LAST = STAMPS[-1]


def test_a_disk_that_has_all_is_right():
    assert wrong_blocks(STAMPS, Disk().read) == []


def test_what_was_written_later_than_was_heard_is_right():
    disk = Disk()
    disk.blocks[offset_of(LAST)] = torn(LAST, LAST + BLOCKS)
    assert wrong_blocks(STAMPS, disk.read) == []


@pytest.mark.parametrize(
    "block",
    [
        stamped(LAST - BLOCKS),
        torn(LAST - BLOCKS, LAST),
        stamped(LAST + 1),
        bytes(BLOCK),
        stamped(LAST)[: BLOCK // 2],
        b"x" * BLOCK,
    ],
    ids=["older", "torn", "of-another-block", "zeros", "short", "no-stamp"],
)
def test_anything_else_is_found(block):
    disk = Disk()
    disk.blocks[offset_of(LAST)] = block
    (told,) = wrong_blocks(STAMPS, disk.read)
    assert str(LAST) in told


def test_acknowledgements_are_read_whole_or_not_at_all():
    said = "acked 00001000.\nacked 0000[   3.1] vdb: hm\n1001.\n/ # acked 00001002.\nacked 0000"
    assert acked(said) == [1000, 1002]


def test_the_newest_stamp_is_found_wherever_it_is():
    disk = Disk()
    assert newest_stamp(disk.read) == LAST
    disk.blocks[offset_of(3)] = stamped(8 * BLOCKS + 3)
    assert newest_stamp(disk.read) == 8 * BLOCKS + 3
    disk.blocks.clear()
    assert newest_stamp(disk.read) == 0


def test_what_differs_is_found_where_it_is_looked_at():
    one, other, last = Disk(), Disk(), offset_of(2 * BLOCKS + 2)
    assert unlike([0, last], one.read, other.read, BLOCK) == []
    other.blocks[last] = stamped(2)
    assert unlike([0, last], one.read, other.read, BLOCK) == [last]
    assert unlike([0], one.read, other.read, BLOCK) == []


def test_the_writer_writes_what_the_check_reads(tmp_path):
    """The very command, by this machine's shell: a full disk ends it."""
    file = tmp_path / "disk"
    file.touch()
    command = f"ulimit -f {offset_of(5) // SECTOR}; {writer(str(file), 1)}; wait $writer"
    done = subprocess.run(
        ("sh", "-c", command), capture_output=True, text=True, timeout=30, check=False
    )
    stamps = acked(done.stdout)
    assert stamps == [1, 2, 3, 4]
    assert "WRITE-FAILED" in done.stdout
    content = file.read_bytes()
    assert wrong_blocks(stamps, lambda at, size: content[at : at + size]) == []
