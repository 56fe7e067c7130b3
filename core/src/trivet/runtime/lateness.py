"""How late a message is, without comparing the clocks of two machines.

A request may wait unseen: in the socket of a process that hangs, in the buffers of a cut network.
Who gets it then must know that its caller has given up and has asked somebody else meanwhile, for
a change that is done late undoes what was done since. A request says who sent it and when, by
the sender's own clock. The least difference to the receiver's clock that a sender's messages had
is taken for the difference of the clocks; what a message has more than that, it was under way.

A sender's first message is taken to be on time. Where a sender's clock was stopped (its machine
was suspended), all that it sends looks late: it is told, and goes on under another name.
"""

from __future__ import annotations

import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

SENDERS_MAX = 4096
DRIFT = 200e-6
"""How fast two clocks may part, in seconds a second: some times what quartz does."""

_STAMP = re.compile(r"([0-9a-f]{8})\.([0-9]{1,15})")


def boot_time() -> float:
    """Seconds since this machine's start, those of a suspension too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Stamp:
    """What a sender writes on its messages."""

    def __init__(self, clock: Callable[[], float] = boot_time) -> None:
        self._clock = clock
        self.renew()

    def renew(self) -> None:
        """Go on under another name."""
        self._sender = secrets.token_hex(4)

    def now(self) -> str:
        """The stamp of a message that is sent now."""
        return f"{self._sender}.{int(self._clock() * 1000)}"


class Lateness:
    """What one receiver knows of those who send to it."""

    def __init__(self, clock: Callable[[], float] = boot_time) -> None:
        self._clock = clock
        self._least: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def of(self, stamp: str) -> float:
        """How many seconds longer than the fastest of its sender a message was under way that
        arrives now; 0 where that can't be said."""
        match = _STAMP.fullmatch(stamp)
        if match is None:
            return 0.0
        sender, now = match[1], self._clock()
        apart = now - int(match[2]) / 1000
        least, since = self._least.get(sender, (apart, now))
        allowed = least + DRIFT * (now - since)
        if apart <= allowed:
            self._least[sender] = (apart, now)
            self._least.move_to_end(sender)
            if len(self._least) > SENDERS_MAX:
                self._least.popitem(last=False)
        return max(0.0, apart - allowed)
