"""How often somebody may come: token buckets, pure but for the time that is handed in.

A bucket holds at most `burst` and fills at `per_s`; a request takes one, and is told how long to
wait where none is left. Buckets of the longest silent are forgotten, which only ever gives: a
forgotten bucket is a full one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

KEYS_BOUND = 16_384


class Rates:
    """One bucket a key, all of one size."""

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: Hashable, now: float) -> float:
        """How long until there is one for `key` (0: there is)."""
        return max(0.0, (1.0 - self._level(key, now)) / self._per_s)

    def take(self, key: Hashable, now: float) -> float:
        """Take one; 0 where there was one, else how long until there is, in seconds."""
        level = self._level(key, now)
        if level < 1.0:
            return (1.0 - level) / self._per_s
        self._levels[key] = (level - 1.0, now)
        self._levels.move_to_end(key)
        if len(self._levels) > KEYS_BOUND:
            self._levels.popitem(last=False)
        return 0.0

    def _level(self, key: Hashable, now: float) -> float:
        level, at = self._levels.get(key, (float(self._burst), now))
        return min(self._burst, level + (now - at) * self._per_s)
