"""When a process that ended is started again: pure decisions of the supervisor.

A process that ends soon after its start waits longer each time, up to a bound; one that ran well
for a while starts anew at once. Nothing is given up: a cause that is mended (space, a setting)
heals by itself within the bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 15.0
RAN_WELL_S = 60.0


@dataclass(frozen=True)
class RestartState:
    """How a process has done so far. Times are monotonic seconds."""

    failures: int = 0
    started_at: float | None = None
    not_before: float = 0.0

    def started(self, now: float) -> RestartState:
        """It was started."""
        return replace(self, started_at=now)

    def ended(self, now: float) -> RestartState:
        """It ended without being asked to."""
        ran_s = now - self.started_at if self.started_at is not None else 0.0
        failures = 1 if ran_s >= RAN_WELL_S else self.failures + 1
        return RestartState(failures, None, now + delay_s(failures))

    def due(self, now: float) -> bool:
        """Whether it may be started now."""
        return self.started_at is None and now >= self.not_before


def delay_s(failures: int) -> float:
    """Seconds to wait after so many ends in a row."""
    return min(FIRST_DELAY_S * float(1 << min(max(failures - 1, 0), 16)), LONGEST_DELAY_S)
