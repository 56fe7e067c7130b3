"""What a guest wrote, told by itself, and what must then be found on every replica.

A loop in the guest's shell writes blocks one after the other, each with its number as a stamp in
every sector, flushes each, and says on its console `acked N`. Blocks come round again, so that
most are overwritten many times; they are spread over the disk. The check trusts nothing but the
console's words and the replicas' bytes: pure, and knowing nothing of how they were kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

SECTOR = 512
BLOCK = 4096
BLOCKS = 512
STRIDE = 511
"""How many blocks lie from one that is written to the next: all lie in the first GiB."""
FAILED = "WRITE-FAILED"

_ACKED = re.compile(r"acked (\d{8})\.")
_STAMP = re.compile(rb" *(\d+)")

ReadAt = Callable[[int, int], bytes]
"""The bytes at an offset, so many."""


def writer(device: str, first: int) -> str:
    """A shell command that writes in the background, with the stamps from `first` on."""
    sectors = BLOCK // SECTOR
    stamped = f"printf '%{SECTOR}d' " + " ".join(["$n"] * sectors)
    place = f"seek=$((n%{BLOCKS}*{STRIDE}))"
    failed = FAILED.replace("-", "'-'")  # what is typed is shown, too, and tells of no failure
    write = f"dd of={device} bs={BLOCK} {place} iflag=fullblock conv=notrunc,fsync 2>/dev/null"
    turn = f"{stamped} | {write} || {{ echo {failed}; break; }}; printf 'acked %08d.\\n' $n"
    return f"(n={first}; while :; do {turn}; n=$((n+1)); done) & writer=$!"


STOP = "kill $writer; wait $writer 2>/dev/null; sync"
"""A shell command that ends the writer between two of its commands, in the same shell."""


def acked(text: str) -> list[int]:
    """The stamps that a console's text says were acknowledged."""
    return [int(number) for number in _ACKED.findall(text)]


def offset_of(stamp: int) -> int:
    """Where on the disk the block with that stamp is."""
    return stamp % BLOCKS * STRIDE * BLOCK


def wrong_blocks(acknowledged: Iterable[int], read: ReadAt) -> list[str]:
    """The blocks that don't carry their last acknowledged stamp or a later one, a line each.
    One that was on the way when the guest died may be there in part: each sector is looked at."""
    last: dict[int, int] = {}
    for stamp in acknowledged:
        place = stamp % BLOCKS
        last[place] = max(stamp, last.get(place, 0))
    found = []
    for stamp in last.values():
        block = read(offset_of(stamp), BLOCK)
        sectors = [_stamp_of(block[at : at + SECTOR]) for at in range(0, BLOCK, SECTOR)]
        if any(s is None or s < stamp or s % BLOCKS != stamp % BLOCKS for s in sectors):
            found.append(f"block {stamp % BLOCKS} carries {sectors}, {stamp} was acknowledged")
    return found


def newest_stamp(read: ReadAt) -> int:
    """The highest stamp that a disk carries anywhere; 0: none."""
    found = (_stamp_of(read(offset_of(place), SECTOR)) for place in range(BLOCKS))
    return max((stamp for stamp in found if stamp is not None), default=0)


def _stamp_of(sector: bytes) -> int | None:
    match = _STAMP.fullmatch(sector)
    return int(match[1]) if match and len(sector) == SECTOR else None


def unlike(offsets: Iterable[int], one: ReadAt, other: ReadAt, piece: int) -> list[int]:
    """The offsets, of those, of the pieces in which two disks differ."""
    return [at for at in offsets if one(at, piece) != other(at, piece)]
