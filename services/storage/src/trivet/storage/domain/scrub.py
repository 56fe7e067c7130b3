"""Which side is rotten where replicas differ, and when a volume is scrubbed: pure.

All replicas in sync have the same bytes, but for writes that are on their way. So a block whose
hashes differ is looked at again; if it stays exactly so, one side is rotten. Which one: the side
whose hash is still what was found right at the last scrub is good, for a write since would have
changed both alike; else the majority is. Where neither tells, nothing is decided, and that is
said: it takes somebody who knows what is right. A block that a disk can't give back is wrong
there, if it can be read anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from trivet.contracts.resource import Condition, Phase
from trivet.contracts.storage.replication import UNREADABLE
from trivet.contracts.storage.volume import Scrub, Volume
from trivet.storage.domain.volume_status import in_sync

BLOCK_BYTES = 1024 * 1024
STEP_BLOCKS = 32
LOOKS = 3
"""How often blocks that differ are looked at before they are judged."""


Change = Callable[[Volume], Volume]


@dataclass(frozen=True)
class Block:
    """A block by node: its hash now, and the one found right at the last scrub (None: none)."""

    hashes: Mapping[str, str]
    stored: Mapping[str, str | None]

    @property
    def alike(self) -> bool:
        """Whether all replicas have the same, and give it back."""
        return len(set(self.hashes.values()) - {UNREADABLE}) <= 1 and not self.unreadable

    @property
    def unreadable(self) -> frozenset[str]:
        """The nodes whose disks don't give it back."""
        return frozenset(n for n, h in self.hashes.items() if h == UNREADABLE)


@dataclass(frozen=True)
class Rot:
    """`rotten`: the nodes whose replica is wrong; none, though they differ: not `decided`."""

    rotten: frozenset[str] = frozenset()
    decided: bool = True


def judge(block: Block) -> Rot:
    """Who is rotten."""
    if block.alike:
        return Rot()
    told = {n: h for n, h in block.hashes.items() if n not in block.unreadable}
    right = {h for h in block.stored.values() if h is not None}
    kept = {n for n, h in told.items() if h in right} if len(right) == 1 else set()
    if not kept:
        ranked = Counter(told.values()).most_common()
        if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
            return Rot(decided=False)
        kept = {n for n, h in told.items() if h == ranked[0][0]}
    return Rot(frozenset(block.hashes) - frozenset(kept))


def unchanged(before: Sequence[Block], after: Sequence[Block]) -> list[bool]:
    """Of each block, whether all its hashes are as they were: no write is on its way there."""
    return [a.hashes == b.hashes for a, b in zip(before, after, strict=True)]


def is_due(volume: Volume, now: datetime, every_s: float) -> bool:
    """Whether a volume is to be scrubbed: it was asked for, or the last time is long ago; only
    where all that it has is in sync, for only then there is something to compare."""
    if volume.meta.deleting_at is not None or volume.status.phase is not Phase.READY:
        return False
    if len(in_sync(volume)) < len(volume.status.replicas):
        return False
    scrub = volume.status.scrub
    since = scrub.at or volume.meta.created_at
    return scrub.asked or bool(scrub.offset_bytes) or now - since >= timedelta(seconds=every_s)


def in_turn(volumes: Sequence[Volume]) -> list[Volume]:
    """Due volumes: what was begun first, then what was asked for, then the longest ago."""

    def rank(volume: Volume) -> tuple[bool, bool, datetime, str]:
        scrub = volume.status.scrub
        since = scrub.at or volume.meta.created_at
        return (not scrub.offset_bytes, not scrub.asked, since, volume.meta.id)

    return sorted(volumes, key=rank)


def told(volume: Volume, rotten: Mapping[str, int], undecided: int, now: datetime) -> Volume:
    """The volume after a scrub that found so many rotten blocks on nodes, and so many where it
    could not be said who is right."""
    found = sum(rotten.values())
    words = [f"{count} blocks were wrong on {node}" for node, count in sorted(rotten.items())]
    if undecided:
        words.append(f"{undecided} blocks differ, and nobody knows which are right")
    condition = Condition.model_validate(
        {
            "type": "Consistent",
            "status": "false" if found or undecided else "true",
            "reason": "Undecided" if undecided else "Repaired" if found else "Alike",
            "message": "; ".join(words),
        }
    )
    scrub = Scrub(at=now, found_blocks=volume.status.scrub.found_blocks + found)
    status = volume.status.with_condition(condition, now)
    return volume.model_copy(update={"status": status}).with_status(scrub=scrub)
