"""Alarms: what is wrong and wants somebody's attention, with its cause and what to do about it.

An alarm is derived from a resource's status by a rule, a pure function; it says nothing that the
resource does not. Each service keeps the alarms of its own kinds in its own bucket, one for each
(rule, subject) for ever: it is raised, cleared, raised again. `state` labels and phases follow.
A rule's name never changes: scripts and people's notes refer to it.

A service adds a rule by one entry in `contracts/<service>/alarms.py`; from there come the
alarms, their events, and docs/alarms.md.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic

from pydantic import Field

from trivet.contracts.endpoint import Crud, Ref, action, crud
from trivet.contracts.event import EventType
from trivet.contracts.model import Model, Name, ResourceId
from trivet.contracts.resource import Kind, Resource, ResourceT, Scope, Status

MORE = "more"
"""Stands for the subjects beyond the bound of a rule."""


class Severity(StrEnum):
    """`critical`: something is not served or about to be lost, act now. `warning`: it works,
    with less than it should have. `info`: worth knowing."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class AlarmState(StrEnum):
    """Whether what the alarm speaks of is so now."""

    RAISED = "raised"
    CLEARED = "cleared"


class Subject(Model):
    """The resource that an alarm speaks of; `id` None: many, see the cause."""

    kind: str
    id: ResourceId | None = None
    project: str | None = None
    name: str | None = None


class Delivery(Model):
    """How far a sink has been told: up to change number `change` of the alarm; `failures` in a
    row since then, the next attempt not before `not_before`; `gave_up` on that change."""

    change: int = 0
    failures: int = 0
    not_before: datetime | None = None
    gave_up: int = 0
    problem: str = ""


class AlarmSpec(Model):
    """What people said of it: who knows of it. It is forgotten when it is raised anew."""

    acknowledged_by: str | None = None
    acknowledged_at: datetime | None = None
    note: str = Field(default="", max_length=500)


class AlarmStatus(Status):
    """`change` counts raisings and clearings; `raised` are the last raisings (a bounded list,
    newest last): one that flips is held longer before it clears."""

    rule: str
    severity: Severity
    state: AlarmState = AlarmState.RAISED
    subject: Subject
    title: str
    cause: str
    remedy: str
    raised_at: datetime
    cleared_at: datetime | None = None
    change: int = 1
    raised: tuple[datetime, ...] = ()
    deliveries: Mapping[str, Delivery] = {}


class Alarm(Resource[AlarmSpec, AlarmStatus]):
    """Something that wants attention."""

    kind: str = "Alarm"


@dataclass(frozen=True)
class AlarmRule(Generic[ResourceT]):
    """When a resource of `kind` is cause for an alarm.

    `when` answers with the cause, a sentence for people that names numbers and places, or None
    where all is well. `remedy` says what to do, as a command where there is one. The cause must
    hold for `after_s` before the alarm is raised, and be away for `clear_s` (longer for one that
    flips) before it is cleared.
    """

    name: Name
    kind: Kind[ResourceT]
    severity: Severity
    title: str
    remedy: str
    when: Callable[[ResourceT, datetime], str | None]
    after_s: float = 0.0
    clear_s: float = 30.0

    def alarm_name(self, id_: str) -> Name:
        """The name of the alarm of this rule about the resource of that id."""
        return f"{self.name}-{hashlib.sha256(id_.encode()).hexdigest()[:10]}"

    def __repr__(self) -> str:
        return f"<AlarmRule {self.name} on {self.kind.name}>"


class AckRequest(Ref):
    """Say that somebody knows; `note` is kept with it."""

    note: str = Field(default="", max_length=500)


def alarm_kind(service: str) -> Kind[Alarm]:
    """The kind of a service's alarms."""
    raised = EventType(service, "alarm", "raised")
    cleared = EventType(service, "alarm", "cleared")
    acknowledged = EventType(service, "alarm", "acknowledged")

    def events(before: Alarm | None, after: Alarm | None) -> tuple[EventType, ...]:
        if after is None:
            return ()
        found: list[EventType] = []
        if before is None or before.status.change != after.status.change:
            found.append(raised if after.status.state is AlarmState.RAISED else cleared)
        known = before is not None and before.spec.acknowledged_by is not None
        if after.spec.acknowledged_by is not None and not known:
            found.append(acknowledged)
        return tuple(found)

    return Kind(
        Alarm,
        "alarm",
        "alarms",
        service,
        Scope.CLUSTER,
        "Something that wants attention",
        extra_events=events,
        extra_event_types=(raised, cleared, acknowledged),
        shared=True,
    )


def alarm_operations(kind: Kind[Alarm]) -> Crud[Alarm]:
    """What can be done with a service's alarms: list, get, acknowledge. People can't make or
    remove one: it follows from what it speaks of."""
    ack: Any = action(kind, "ack", "Say that somebody knows of an alarm.", request=AckRequest)
    return Crud(kind, (*crud(kind, verbs=("list", "get")).endpoints, ack))


def alarm_rules(service: str) -> tuple[AlarmRule[Any], ...]:
    """All rules of a service; none for one that keeps no resources."""
    name = f"trivet.contracts.{service}.alarms"
    if importlib.util.find_spec(name) is None:
        return ()
    rules: tuple[AlarmRule[Any], ...] = importlib.import_module(name).RULES
    return rules
