"""A pretended agent in a guest, with one file system. Freezing twice is an error, as in reality."""

from __future__ import annotations

import asyncio

from trivet.contracts.compute.guest_agent import GuestReport
from trivet.contracts.errors import DRIVER_FAILED, Retry


class FakeAgent:
    """The agent of one guest; `said` is what it reports."""

    def __init__(self) -> None:
        self.said = GuestReport(hostname="pretended", addresses=("192.0.2.9",))
        self.clock_sets = 0
        self._bound: asyncio.TimerHandle | None = None

    @property
    def frozen(self) -> bool:
        """Whether its file system is frozen."""
        return self._bound is not None

    def report(self) -> GuestReport:
        """What it says; nothing while it is frozen."""
        if self.frozen:
            raise Retry(DRIVER_FAILED, "the agent is frozen")
        return self.said

    def freeze(self, bound_s: float) -> int:
        """Freeze, and thaw after `bound_s`."""
        if self.frozen:
            raise Retry(DRIVER_FAILED, "it is frozen already")
        self._bound = asyncio.get_running_loop().call_later(bound_s, self.thaw)
        return 1

    def thaw(self) -> int:
        """Thaw; whether it was frozen."""
        was, self._bound = self._bound, None
        if was is not None:
            was.cancel()
        return int(was is not None)

    def end(self) -> None:
        """The guest is gone."""
        self.thaw()
