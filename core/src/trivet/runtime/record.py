"""The record: how a resource lies in the store, with the events that are still to be told.

State and event commit together: a write puts the events it causes into the same value, and the
publisher (`outbox`) tells and clears them afterwards. What makes that exact is an event's *id*,
`<bucket>/<revision>/<n>`: the revision of the write that caused it, and its place in that write.
A writer can't know the revision of a write that it is about to make, so an item says `revision`
None for "the revision of this very record"; who writes the record again (the resource changed
before the outbox was cleared) carries the item on and fills in the revision that it read. So
an item has one id, whoever looks and whenever, and a repeat of the telling is seen as one.

Every writer uses `next_outbox`; nothing else may build an outbox. Clearing one (`cleared`)
changes the record and not the resource: `same_as` then says at which revision the resource was
written, so that nobody who holds that revision meets a conflict that is none.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from trivet.contracts.event import PendingEvent
from trivet.contracts.model import Model

BodyT = TypeVar("BodyT")

PUBLISHED_BOUND = 65536


class OutboxItem(Model):
    """An event to be told. `revision` None: that of the record it is found in. `n` counts
    from 0 in the write that caused it."""

    event: PendingEvent
    n: int
    revision: int | None = None

    def id(self, bucket: str, revision: int) -> str:
        """The event's id for ever; `revision` is that of the record it was found in."""
        return f"{bucket}/{self.revision or revision}/{self.n}"


class Record(Model, Generic[BodyT]):
    """A resource as stored. `gone`: it was removed; its last events are told, then the key goes.

    `trace`: the trace (W3C `traceparent`) under which the resource was written, if any.
    `same_as`: 0, or the revision at which this very resource was written (what has been written
    since cleared its outbox and no more). A collection reads a record with the kind's model as
    `resource`, the publisher with plain JSON.
    """

    resource: BodyT
    gone: bool = False
    outbox: tuple[OutboxItem, ...] = ()
    same_as: int = 0
    trace: str | None = None

    def written_at(self, revision: int) -> int:
        """The revision of the resource itself, in a record found at `revision`."""
        return self.same_as or revision


def carried(outbox: tuple[OutboxItem, ...], revision: int) -> tuple[OutboxItem, ...]:
    """Items found in a record at `revision`, as they go into the record that follows it."""
    return tuple(
        item if item.revision is not None else item.model_copy(update={"revision": revision})
        for item in outbox
    )


class Published:
    """Ids of events that this process knows to be in the stream (the newest few).

    The next write of their record leaves those out, which saves the publisher a write.
    """

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def add(self, id_: str) -> None:
        """Remember that this event is in the stream."""
        self._ids[id_] = None
        if len(self._ids) > PUBLISHED_BOUND:
            self._ids.popitem(last=False)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._ids


def next_outbox(
    bucket: str,
    outbox: tuple[OutboxItem, ...],
    revision: int,
    events: tuple[PendingEvent, ...],
    published: Published,
) -> tuple[OutboxItem, ...]:
    """The outbox of the record that follows the one with `outbox`, found at `revision`."""
    unsent = tuple(item for item in outbox if item.id(bucket, revision) not in published)
    new = tuple(OutboxItem(event=event, n=n) for n, event in enumerate(events))
    return (*carried(unsent, revision), *new)


def cleared(
    bucket: str, record: Record[BodyT], revision: int, published: Published
) -> Record[BodyT]:
    """The record to write over `record`, found at `revision`, when some of its events are told."""
    outbox = next_outbox(bucket, record.outbox, revision, (), published)
    changes = {"outbox": outbox, "same_as": record.written_at(revision)}
    return record.model_copy(update=changes)
