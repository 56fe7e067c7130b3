"""What libvirt's numbers mean: states, events and their reasons, as tables.

The numbers are libvirt's stable ABI (virDomainState and its reasons, virDomainEventType and
its details); they are written out here so that the tables are pure and can be tested without it.
"""

from __future__ import annotations

from trivet.contracts.compute.vm import Power

_POWER = {
    0: Power.UNKNOWN,  # no state
    1: Power.RUNNING,
    2: Power.RUNNING,  # blocked
    3: Power.PAUSED,
    4: Power.RUNNING,  # being shut down
    5: Power.STOPPED,  # shut off
    6: Power.STOPPED,  # crashed
    7: Power.PAUSED,  # suspended by the guest
}

_RUNNING = {1: "booted", 5: "user"}
_PAUSED = {1: "user", 5: "io_error", 10: "crashed", 11: "booted"}
_STOPPED = {1: "shutdown", 2: "destroyed", 3: "crashed", 6: "crashed"}

STARTED, SUSPENDED, RESUMED, STOPPED, CRASHED = 2, 3, 4, 5, 8

_EVENTS = {
    STARTED: (Power.RUNNING, {0: "booted"}),
    SUSPENDED: (Power.PAUSED, {0: "user", 2: "io_error"}),
    RESUMED: (Power.RUNNING, {0: "user"}),
    STOPPED: (Power.STOPPED, {0: "shutdown", 1: "destroyed", 2: "crashed", 5: "crashed"}),
    CRASHED: (Power.STOPPED, {0: "crashed", 1: "crashed"}),
}


def power_of(state: int, reason: int) -> tuple[Power, str]:
    """The power and reason of what `virDomainGetState` said; unheard of is `unknown`."""
    power = _POWER.get(state, Power.UNKNOWN)
    if state == 6:
        return power, "crashed"
    reasons = {Power.RUNNING: _RUNNING, Power.PAUSED: _PAUSED, Power.STOPPED: _STOPPED}
    return power, reasons.get(power, {}).get(reason, "unknown")


def power_after(event: int, detail: int) -> tuple[Power, str] | None:
    """The power and reason that a lifecycle event tells, or None if it tells neither."""
    known = _EVENTS.get(event)
    if known is None:
        return None
    power, reasons = known
    return power, reasons.get(detail, "unknown")
