"""Events: what happened, as CloudEvents 1.0 in JSON, for subscribers and other services.

An event is derived from a write (`resource.derive_events`), rides in the same record as an
outbox, and is published under the message id `<bucket>/<revision>/<n>`; so none is lost or
doubled. `type` is `trivet.compute.vm.started.v1`; the bus subject has `evt` after `trivet`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from trivet.contracts.model import Model, ResourceId

STREAM = "EVENTS"
SUBJECT_PREFIX = "trivet.evt"


@dataclass(frozen=True)
class EventType:
    """What kind of event: owner service, noun (a kind's name), verb in the past tense."""

    service: str
    noun: str
    verb: str
    version: int = 1

    @property
    def type(self) -> str:
        """The CloudEvents `type`, e.g. `trivet.compute.vm.started.v1`."""
        return f"trivet.{self.service}.{self.noun}.{self.verb}.v{self.version}"

    @property
    def subject(self) -> str:
        """The bus subject, e.g. `trivet.evt.compute.vm.started.v1`."""
        return subject_of(self.type)


def subject_of(type_: str) -> str:
    """The bus subject on which events of that CloudEvents type are published."""
    return SUBJECT_PREFIX + type_.removeprefix("trivet")


class ResourceFacts(Model):
    """The data of every event: which resource, and how it was right after the write."""

    kind: str
    id: ResourceId
    name: str
    project: str | None
    generation: int
    phase: str


class PendingEvent(Model):
    """An event in a record's outbox: not yet known to be in the stream."""

    type: str
    subject: str
    time: datetime
    data: ResourceFacts


class CloudEvent(Model):
    """An event as published (CloudEvents 1.0, JSON format); `subject` is the resource's id."""

    specversion: str = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: datetime
    datacontenttype: str = "application/json"
    data: ResourceFacts
