"""Where two replicas differ, by the hashes that each host has made of its own."""

from __future__ import annotations

from trivet.contracts.errors import INVALID, Refused
from trivet.contracts.storage.replication import UNREADABLE, Digest, Extent


def differing(one: Digest, other: Digest, end: int) -> tuple[Extent, ...]:
    """The extents whose hashes differ, neighbours joined, up to `end`. Raises
    `Refused(INVALID)` where the two do not speak of the same bytes."""
    if (one.offset, one.block_bytes, len(one.hashes)) != (
        other.offset,
        other.block_bytes,
        len(other.hashes),
    ):
        raise Refused(INVALID, f"hashes of other bytes: {_of(one)} and {_of(other)}")
    found: list[Extent] = []
    for number, (mine, theirs) in enumerate(zip(one.hashes, other.hashes, strict=True)):
        if mine == theirs != UNREADABLE:
            continue
        offset = one.offset + number * one.block_bytes
        length = min(one.block_bytes, end - offset)
        last = found[-1] if found else None
        if last is not None and last.offset + last.length == offset:
            found[-1] = Extent(offset=last.offset, length=last.length + length)
        else:
            found.append(Extent(offset=offset, length=length))
    return tuple(found)


def _of(digest: Digest) -> str:
    return f"{len(digest.hashes)} x {digest.block_bytes} bytes from {digest.offset}"
