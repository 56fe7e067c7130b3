"""Alarm sinks: where alarms are told to people and other systems (a webhook, a syslog server).

A sink is told the state of an alarm whenever that changed, at least once: after a failure or a
crash the same notice comes again, which a receiver knows by its `key`. A sink that can't be
reached is tried again at growing intervals, a bounded number of times; what was raised and
cleared meanwhile is told as cleared.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from trivet.contracts.alarm import AlarmState, Severity, Subject
from trivet.contracts.driver import Driver
from trivet.contracts.model import Model


class AlarmNotice(Model):
    """What a sink is told. `key` is the same when the same change is told again; `node` is
    the one that tells."""

    key: str
    service: str
    node: str
    name: str
    rule: str
    severity: Severity
    state: AlarmState
    subject: Subject
    title: str
    cause: str
    remedy: str
    raised_at: datetime
    cleared_at: datetime | None = None


class AlarmSink(Driver, Protocol):
    """Tells alarms to somebody outside."""

    async def tell(self, notice: AlarmNotice) -> None:
        """Returns once the receiver has taken it; ends within 30 s. Raises `Retry` where it may
        be taken later, `Refused` where this notice never will be (it is not tried again)."""
        ...
