"""Telling the events that writes left in their records' outboxes, each exactly once.

Run by the instance that leads; safety does not rest on that. It is fed by the service's watch of
its bucket, appends each item to the event stream under the item's own id, then clears it. Killed
at any point it tells again, and the stream takes an id once within its window; what may be older
than the window is looked for in the stream first. So no event is lost, none doubled.

Clearing costs a write, and nobody waits for it. While a resource is busy, its next write leaves
out what is known to be told (`record.next_outbox`); and while the bucket is, whoever waits for
something would wait for the clearing of others too. So a record is cleared when no events have
come for `CLEAR_AFTER_S`, some at a time, or when it has been still for `CLEAR_LATEST_S`.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from trivet.contracts.errors import CONFLICT, Refused
from trivet.contracts.event import CloudEvent, subject_of
from trivet.runtime.bus import DEDUPE_WINDOW_S, Bus
from trivet.runtime.clock import Clock
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.record import OutboxItem, Published, Record, cleared
from trivet.runtime.store import Change, Store

log = logging.getLogger(__name__)

CLEAR_AFTER_S = 2.0
CLEAR_LATEST_S = 15.0
CLEARED_AT_ONCE = 50
RECORDS_AT_ONCE = 32
SURE_WITHIN = timedelta(seconds=DEDUPE_WINDOW_S / 2)
CLOCKS_DIFFER = timedelta(seconds=60)
LOOK_BACK = timedelta(hours=1)

RawRecord = Record[dict[str, Any]]


@dataclass(frozen=True)
class _Found:
    """A record with something to do, as the watch told it at `at` (monotonic)."""

    value: bytes
    revision: int
    at: float


class OutboxPublisher:
    """Publishes the outboxes of one bucket: `take` is a sink of its feed, for as long as the
    process lives; `run` works while the instance leads."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        clock: Clock,
        published: Published,
        *,
        clear_after_s: float = CLEAR_AFTER_S,
        clear_latest_s: float = CLEAR_LATEST_S,
    ) -> None:
        self._clear_after_s = clear_after_s
        self._clear_latest_s = clear_latest_s
        self._bus = bus
        self._store = store
        self._clock = clock
        self._published = published
        self._found: dict[str, _Found] = {}
        self._quiet_since = clock.monotonic()
        self._reconciler = Reconciler(
            f"outbox {store.bucket}",
            self._settle,
            clock=clock,
            bound=RECORDS_AT_ONCE,
            keys=lambda: self._found,
        )

    def take(self, change: Change) -> None:
        """Note a step of the feed, if it leaves something to do."""
        if change.value is None or not has_work(change.value):
            self._found.pop(change.key, None)
            return
        now = self._quiet_since = self._clock.monotonic()
        # At the end, so that those that have been still for longest come first.
        self._found.pop(change.key, None)
        self._found[change.key] = _Found(change.value, change.revision, now)
        self._reconciler.wake(change.key)

    async def run(self) -> None:
        """Publish until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reconciler.run())
            group.create_task(self._clear_when_quiet())

    async def _clear_when_quiet(self) -> None:
        while True:
            await self._clock.sleep(self._clear_after_s / 4)
            if self._quiet():
                for key in [*islice(self._found, CLEARED_AT_ONCE)]:
                    self._reconciler.wake(key)

    def _quiet(self) -> bool:
        """Whether no events have come for a while."""
        return self._clock.monotonic() - self._quiet_since >= self._clear_after_s

    async def _settle(self, key: str) -> float | None:
        """Tell what is untold in the record of `key`; then clear it, or delete a gone one."""
        found = self._found.get(key)
        if found is None:
            return None
        record = RawRecord.model_validate_json(found.value)
        for item in record.outbox:
            await self._tell(item, item.id(self._store.bucket, found.revision))
        still_for = self._clock.monotonic() - found.at
        if not record.gone and not self._quiet() and still_for < self._clear_latest_s:
            return self._clear_latest_s - still_for
        try:
            if record.gone:
                await self._store.delete(key, found.revision)
            else:
                bare = cleared(self._store.bucket, record, found.revision, self._published)
                value = bare.model_dump_json().encode()
                await self._store.update(key, value, found.revision)
        except Refused as error:
            if error.code is not CONFLICT:
                raise
            # A newer record is on its way through the watch, or has come already.
            return self._clear_after_s
        if self._found.get(key) is found:
            del self._found[key]
        return None

    async def _tell(self, item: OutboxItem, id_: str) -> None:
        if id_ in self._published:
            return
        event = item.event
        subject = subject_of(event.type)
        now = self._clock.now()
        if not surely_in_window(event.time, now):
            since = min(event.time, now) - LOOK_BACK
            if await self._bus.find_event(subject, id_, since=since) is not None:
                self._published.add(id_)
                return
        message = CloudEvent(
            id=id_,
            source=f"trivet/{self._store.bucket}",
            type=event.type,
            subject=event.subject,
            time=event.time,
            data=event.data,
        )
        await self._bus.append_event(subject, message.model_dump_json().encode(), message_id=id_)
        self._published.add(id_)


def has_work(value: bytes) -> bool:
    """Whether a value is a record with events to tell, or gone; told from its bytes, since
    most of what passes is neither. JSON escapes quotes in strings, so no text can pretend."""
    return b'"outbox":[{' in value or b'"gone":true' in value


def surely_in_window(written_at: datetime, now: datetime) -> bool:
    """Whether, of an event caused at `written_at`, an earlier telling would still be known to
    the stream by its id. A time in the future (another machine's clock) says nothing."""
    return -CLOCKS_DIFFER <= now - written_at <= SURE_WITHIN
