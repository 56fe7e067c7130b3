"""Resources of one kind in the store: typed, compare-and-swap, with their events.

Reads are served from a copy that the feed keeps; own writes are in the copy at once. A write
names the revision it read; a conflict is told (`write`) or retried from a fresh read
(`mutate`), never forced. Every write derives its events and carries them (`record.py`).
"""

from __future__ import annotations

import asyncio
import builtins
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Generic

from trivet.contracts.errors import CONFLICT, NAME_TAKEN, Refused, Retry
from trivet.contracts.resource import Kind, ResourceT, derive_events
from trivet.runtime.clock import Clock
from trivet.runtime.record import Published, Record, next_outbox
from trivet.runtime.store import Change, Store
from trivet.runtime.telemetry import current_trace, note_cause

MUTATE_ATTEMPTS = 20


class Collection(Generic[ResourceT]):
    """The resources of one kind."""

    def __init__(
        self, kind: Kind[ResourceT], store: Store, clock: Clock, published: Published | None = None
    ) -> None:
        self.kind = kind
        self._store = store
        self._clock = clock
        self._published = published or Published()
        self._record_model = Record[kind.model]  # type: ignore[name-defined]
        self._records: dict[str, tuple[Record[ResourceT], int]] = {}
        self._order: builtins.list[str] = []
        self._ids: dict[str, str] = {}
        self._callbacks: builtins.list[Callable[[str], None]] = []
        self._waiters: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._writing: dict[str, tuple[bytes, Record[ResourceT]]] = {}

    @property
    def prefix(self) -> str:
        """What all keys of this kind begin with."""
        return f"{self.kind.name}."

    # --- reading ---------------------------------------------------------------------------

    def by_key(self, key: str) -> ResourceT | None:
        """The resource of that key, from the copy."""
        known = self._records.get(key)
        return known[0].resource if known and not known[0].gone else None

    def get(self, name: str, project: str | None = None) -> ResourceT | None:
        """The resource of that name, from the copy."""
        return self.by_key(self.kind.key(project, name))

    def by_id(self, id_: str) -> ResourceT | None:
        """The resource of that id, from the copy."""
        key = self._ids.get(id_)
        return self.by_key(key) if key else None

    def list(self, project: str | None = None) -> builtins.list[ResourceT]:
        """All of a project (None: of all projects), in order of key, from the copy."""
        return [*self.scan(project)]

    def scan(self, project: str | None = None, after: str | None = None) -> Iterator[ResourceT]:
        """As `list`, one by one, from the first key behind `after` on. What comes to be
        meanwhile may be missed, so this is for use without a pause."""
        prefix = f"{self.prefix}{project}." if project else self.prefix
        first = bisect_right(self._order, after) if after else 0
        first = max(first, bisect_left(self._order, prefix))
        while first < len(self._order) and (key := self._order[first]).startswith(prefix):
            if (resource := self.by_key(key)) is not None:
                yield resource
            first += 1

    def keys(self) -> builtins.list[str]:
        """The keys of all that are there."""
        return [k for k, (record, _) in self._records.items() if not record.gone]

    async def fresh(self, key: str) -> ResourceT | None:
        """The resource as the store has it now; the copy learns it too."""
        record = await self._fresh_record(key)
        return record[0].resource if record and not record[0].gone else None

    # --- writing ---------------------------------------------------------------------------

    async def create(self, resource: ResourceT) -> ResourceT:
        """Store a new resource. Raises `Refused(NAME_TAKEN)` where the name is in use."""
        key = self.key_of(resource)
        old = self._records.get(key)
        for _ in range(MUTATE_ATTEMPTS):
            if old is not None and not old[0].gone:
                break
            record = self._next(old, None, resource)
            try:
                return await self._put(key, record, old[1] if old is not None else None)
            except Refused as error:
                # Somebody was first, or the last trace of a deleted namesake went meanwhile.
                if error.code is not CONFLICT:
                    raise
            old = await self._fresh_record(key)
        raise Refused(
            NAME_TAKEN,
            f"there is a {self.kind.name} {resource.meta.name} already",
            hint="choose another name, or delete that one first",
        )

    async def write(self, before: ResourceT, after: ResourceT) -> ResourceT:
        """Store `after` if the store still has `before`; nothing to do where they are equal.

        Raises `Refused(CONFLICT)` where it has another revision (the copy is then fresh).
        """
        return before if after == before else await self._replace(before, after)

    async def touch(self, resource: ResourceT) -> ResourceT:
        """Store the resource as it is, under a new revision, if the store still has it so.

        Who read it before and writes by that conflicts from now on: a decision about another
        resource that rests on this one is made safe by touching it. Raises as `write` does.
        """
        return await self._replace(resource, resource)

    async def _replace(self, before: ResourceT, after: ResourceT) -> ResourceT:
        key = self.key_of(before)
        old = self._records.get(key)
        if old is None or old[0].resource.meta.revision != before.meta.revision:
            old = await self._fresh_record(key)
        if old is None or old[0].gone or old[0].resource.meta.revision != before.meta.revision:
            raise Refused(CONFLICT, f"{self.kind.name} {before.meta.name} was changed meanwhile")
        record = self._next(old, before, after)
        try:
            return await self._put(key, record, old[1])
        except Refused:
            await self._fresh_record(key)
            raise

    async def mutate(self, key: str, change: Callable[[ResourceT], ResourceT]) -> ResourceT | None:
        """Change the resource of `key`, over conflicts; None where it is not there.

        `change` is a function of what is there, called again after a conflict; it may raise.
        """
        current = self.by_key(key) or await self.fresh(key)
        for _ in range(MUTATE_ATTEMPTS):
            if current is None:
                return None
            try:
                return await self.write(current, change(current))
            except Refused as error:
                if error.code is not CONFLICT:
                    raise
            current = await self.fresh(key)
        raise Retry(CONFLICT, f"{key} is being changed by too many at once", retry_after_s=0.2)

    async def remove(self, resource: ResourceT) -> None:
        """Remove for ever, with the `deleted` event; gone already is fine."""
        key = self.key_of(resource)
        for _ in range(MUTATE_ATTEMPTS):
            old = await self._fresh_record(key)
            if old is None or old[0].gone or old[0].resource.meta.id != resource.meta.id:
                return
            record = self._next(old, old[0].resource, None)
            try:
                await self._put(key, record, old[1])
            except Refused as error:
                if error.code is not CONFLICT:
                    raise
                continue
            return
        raise Retry(CONFLICT, f"{key} is being changed by too many at once", retry_after_s=0.2)

    # --- hearing ---------------------------------------------------------------------------

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call `callback(key)` whenever the copy changes, also while it is first filled."""
        self._callbacks.append(callback)

    async def wait_for(
        self, key: str, predicate: Callable[[ResourceT | None], bool], timeout_s: float
    ) -> ResourceT | None:
        """Wait until `predicate` of the copy holds, or for `timeout_s`; returns what is there."""
        changed = asyncio.Event()
        self._waiters[key].add(changed)
        try:
            async with asyncio.timeout(timeout_s):
                while not predicate(self.by_key(key)):
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            pass
        finally:
            self._waiters[key].discard(changed)
            if not self._waiters[key]:
                del self._waiters[key]
        return self.by_key(key)

    def take(self, change: Change) -> None:
        """A step of the feed."""
        known = self._records.get(change.key)
        if known is not None and change.revision <= known[1]:
            return
        if change.value is None:
            if known is not None:
                del self._records[change.key]
                del self._order[bisect_left(self._order, change.key)]
                self._forget_id(change.key, known[0])
                self._tell(change.key)
            return
        writing = self._writing.get(change.key)
        if writing is not None and writing[0] == change.value:
            # The watch was faster than the acknowledgement: it tells what this process wrote.
            self._learn(change.key, writing[1], change.revision)
            return
        record = self._record_model.model_validate_json(change.value)
        self._learn(change.key, record, change.revision)

    def key_of(self, resource: ResourceT) -> str:
        """The key of a resource."""
        return self.kind.key(resource.meta.project, resource.meta.name)

    # --- inside ----------------------------------------------------------------------------

    async def _put(self, key: str, record: Record[ResourceT], revision: int | None) -> ResourceT:
        """Write a record over the one at `revision` (None: there is none); what it says now."""
        value = _encode(record)
        self._writing[key] = (value, record)
        try:
            if revision is None:
                written = await self._store.create(key, value)
            else:
                written = await self._store.update(key, value, revision)
        finally:
            self._writing.pop(key, None)
        return self._learn(key, record, written)

    async def _fresh_record(self, key: str) -> tuple[Record[ResourceT], int] | None:
        entry = await self._store.get(key)
        if entry is None:
            return None
        known = self._records.get(key)
        if known is None or known[1] < entry.revision:
            self._learn(key, self._record_model.model_validate_json(entry.value), entry.revision)
        return self._records[key]

    def _next(
        self,
        old: tuple[Record[ResourceT], int] | None,
        before: ResourceT | None,
        after: ResourceT | None,
    ) -> Record[ResourceT]:
        """The record to write over `old`: the resource after, and all that is still to be told."""
        subject = after or before
        assert subject is not None
        events = derive_events(self.kind, before, after, self._clock.now())
        outbox, revision = (old[0].outbox, old[1]) if old else ((), 0)
        return self._record_model(
            resource=subject,
            gone=after is None,
            trace=current_trace(),
            outbox=next_outbox(self._store.bucket, outbox, revision, events, self._published),
        )

    def _learn(self, key: str, record: Record[ResourceT], revision: int) -> ResourceT:
        written_at = record.written_at(revision)
        meta = record.resource.meta.model_copy(update={"revision": written_at})
        resource = record.resource.model_copy(update={"meta": meta})
        known = self._records.get(key)
        if known is None:
            insort(self._order, key)
        if known is None or known[1] < revision:
            self._records[key] = (record.model_copy(update={"resource": resource}), revision)
            if known is not None:
                self._forget_id(key, known[0])
            if not record.gone:
                self._ids[meta.id] = key
            if record.trace is not None:
                note_cause(key, record.trace, meta.generation)
            self._tell(key)
        return resource

    def _forget_id(self, key: str, record: Record[ResourceT]) -> None:
        if self._ids.get(record.resource.meta.id) == key:
            del self._ids[record.resource.meta.id]

    def _tell(self, key: str) -> None:
        for changed in self._waiters.get(key, ()):
            changed.set()
        for callback in self._callbacks:
            callback(key)


def _encode(record: Record[ResourceT]) -> bytes:
    return record.model_dump_json().encode()
