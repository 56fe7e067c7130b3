"""How long ago something was, by a clock that may have been set meanwhile.

Waits are measured with monotonic clocks. Where a time on record is all there is (another process
wrote it, or it must outlive this one), the distance counts, whichever way it goes: a time that
seems to lie ahead was written before the clock was set back, and nobody waits until the clock has
caught up with it.
"""

from __future__ import annotations

from datetime import datetime


def elapsed_s(since: datetime, now: datetime) -> float:
    """The seconds between the two, never negative."""
    return abs((now - since).total_seconds())
