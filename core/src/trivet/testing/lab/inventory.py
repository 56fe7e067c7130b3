"""What there is, counted by kind, and the difference of two counts: the leak checker's sums.

An inventory holds nothing that changes by itself (pids, revisions, counters), so that two of
them, taken before and after work that undoes itself, are equal unless something leaked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Inventory:
    """By kind (`links`, `keys`, ...), how many there are of each thing."""

    counts: Mapping[str, Counter[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, **kinds: Iterable[str]) -> Inventory:
        """The inventory of some kinds, from their things as they come."""
        return cls({kind: Counter(things) for kind, things in kinds.items()})

    def __or__(self, other: Inventory) -> Inventory:
        """Both, whose kinds are not the same."""
        return Inventory({**self.counts, **other.counts})

    def without(self, *kinds: str) -> Inventory:
        """All kinds but those."""
        return Inventory({k: c for k, c in self.counts.items() if k not in kinds})


def difference(
    before: Inventory, after: Inventory, slack: Mapping[str, int] | None = None
) -> list[str]:
    """What differs, a line each: `+2 links uiqp01`, `-1 keys ...`; none: they are alike.

    `slack` gives kinds of which there may be so many more in all: threads of a pool that grew,
    for one. Such a kind may shrink, too.
    """
    found: list[str] = []
    for kind in sorted({*before.counts, *after.counts}):
        old, new = before.counts.get(kind, Counter()), after.counts.get(kind, Counter())
        if slack and kind in slack and new.total() <= old.total() + slack[kind]:
            continue
        signed = {thing: new[thing] - old[thing] for thing in sorted({*old, *new})}
        found += [f"{n:+d} {kind} {thing}" for thing, n in signed.items() if n]
    return found
