"""The machine's clock as somebody who sets it has it: wall time jumps, monotonic time does not."""

from __future__ import annotations

from datetime import datetime, timedelta

from trivet.runtime.clock import SystemClock


class SetClock(SystemClock):
    """A clock that can be set; it starts right."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def set_ahead(self, seconds: float) -> None:
        """From now on the wall time is so many seconds ahead of the right one (less: behind)."""
        self.ahead_s = seconds

    def now(self) -> datetime:
        """Wall time, as it was set."""
        return super().now() + timedelta(seconds=self.ahead_s)
