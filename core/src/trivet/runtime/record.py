"""The record: how a resource lies in the store, with the events that are still to be told.

State and event commit together: a write puts the events it causes into the same value, and the
publisher (`outbox`) tells and clears them afterwards. What makes that exact is an event's id,
`<bucket>/<resource id>/<n>`, where n counts the resource's events from 0. The count lies in the
record, so of two writers that would give the same n only one gets through its compare-and-swap;
and an item keeps its id while later writes carry it on. So an event has one id, whoever tells it
and how often, and the stream takes it once.

Clearing changes the record and not the resource: `same_as` then says at which revision the
resource was written, so that nobody who holds that revision meets a conflict that is none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Generic

from trivet.contracts.event import PendingEvent
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.resource import ResourceT

PUBLISHED_MAX = 50_000


class OutboxItem(Model):
    """An event that is still to be told, and its id for ever."""

    id: str
    event: PendingEvent


class Record(Model, Generic[ResourceT]):
    """A resource as stored.

    `gone`: it was removed; its last events are told, then the key goes. `emitted`: how many
    events the resource has caused so far. `same_as`: 0, or the revision at which this very
    resource was written (the record was written again only to clear its outbox).
    """

    resource: ResourceT
    gone: bool = False
    emitted: int = 0
    outbox: tuple[OutboxItem, ...] = ()
    same_as: int = 0


class RawRecord(Model):
    """A record of any kind, for who handles outboxes and leaves the resource alone."""

    resource: dict[str, Any]
    gone: bool = False
    emitted: int = 0
    outbox: tuple[OutboxItem, ...] = ()
    same_as: int = 0


def items_for(
    bucket: str, resource_id: ResourceId, emitted: int, events: Sequence[PendingEvent]
) -> tuple[OutboxItem, ...]:
    """The outbox items of a write that causes `events`, after `emitted` earlier ones."""
    return tuple(
        OutboxItem(id=f"{bucket}/{resource_id}/{n}", event=event)
        for n, event in enumerate(events, start=emitted)
    )


def cleared(record: RawRecord, revision: int, told: Published) -> RawRecord:
    """`record`, found at `revision`, without the items that are in the stream."""
    left = tuple(item for item in record.outbox if item.id not in told)
    return record.model_copy(update={"outbox": left, "same_as": record.same_as or revision})


class Published:
    """Ids of events that are known to be in the stream: the newest `PUBLISHED_MAX`.

    A writer leaves out what is in here, which saves the publisher most of its clearing.
    Forgetting is harmless: the event is told again and the stream sees that it has it.
    """

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, id_: str) -> None:
        """Remember an id whose append was acknowledged."""
        self._ids[id_] = None
        if len(self._ids) > PUBLISHED_MAX:
            self._ids.popitem(last=False)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._ids

    def __repr__(self) -> str:
        return f"<Published {len(self._ids)}>"
