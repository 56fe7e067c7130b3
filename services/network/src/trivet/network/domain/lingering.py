"""How long a network stays on a node after its last port there has gone: a pure function.

To make a segment, its gateway and its DHCP takes as long as everything else that a new guest's
network needs, and where one guest goes another one often comes. So they stay for a while, for at
most so many networks; what asks for them and gets them at once need not wait for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from trivet.contracts.model import ResourceId

LINGERING_BOUND = 16
"""How many networks without a port are kept on a node: those that were left last."""

Until = Mapping[ResourceId, float]


def lingering(until: Until, here: Set[ResourceId], now_s: float, linger_s: float) -> Until:
    """Until when each network may stay: those that have ports `here`, counted from now, and
    those that had some not long ago, as they were counted then."""
    left = [n for n, at_s in until.items() if n not in here and at_s > now_s]
    kept = sorted(left, key=lambda n: until[n])[-LINGERING_BOUND:]
    return {n: until[n] for n in kept} | dict.fromkeys(sorted(here), now_s + linger_s)
