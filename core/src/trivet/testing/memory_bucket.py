"""A bucket in memory: keys, revisions, watchers. The server's side of `MemoryStore`.

A watcher holds at most one change a key (a newer one takes the place of the older), so that it
is bounded by the keys and, as the real one may, skips values in between for a slow reader.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from trivet.runtime.store import Change, Entry, Synced


@dataclass(eq=False)
class Watcher:
    """One watch: what it has still to be told, and what it was told already."""

    prefix: str
    connection: object
    up: bool = True
    pending: dict[str, Change] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    sync_due: bool = False
    ready: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, change: Change) -> None:
        """Tell `change`, in place of an older one of the same key."""
        self.pending.pop(change.key, None)
        self.pending[change.key] = change
        self.ready.set()

    def take(self) -> Change | Synced | None:
        """The next step, or None where there is none yet."""
        if self.pending:
            change = self.pending.pop(next(iter(self.pending)))
            (self.known.add if change.value is not None else self.known.discard)(change.key)
            return change
        if self.sync_due:
            self.sync_due = False
            return Synced()
        self.ready.clear()
        return None


@dataclass(eq=False)
class MemoryBucket:
    """The keys of one bucket. A deleted key keeps its last revision and no value."""

    name: str
    revision: int = 0
    keys: dict[str, Change] = field(default_factory=dict)
    watchers: list[Watcher] = field(default_factory=list)

    def entry(self, key: str) -> Entry | None:
        """The value of `key`, or None."""
        found = self.keys.get(key)
        if found is None or found.value is None:
            return None
        return Entry(key, found.value, found.revision)

    def write(self, key: str, value: bytes | None) -> int:
        """Write (None: delete) without any condition; the new revision."""
        self.revision += 1
        change = Change(key, value, self.revision)
        self.keys[key] = change
        for watcher in self.watchers:
            if watcher.up and key.startswith(watcher.prefix):
                watcher.offer(change)
        return self.revision

    def watch(self, prefix: str, connection: object, *, up: bool) -> Watcher:
        """A new watcher that is offered all that is there, at once or (not `up`) once mended."""
        watcher = Watcher(prefix, connection, up)
        self.watchers.append(watcher)
        if up:
            self._tell_all(watcher)
        return watcher

    def cut(self, connection: object) -> None:
        """The watchers of `connection` hear no more; what was not yet told is lost."""
        for watcher in self.watchers:
            if watcher.connection is connection:
                watcher.up = False
                watcher.pending.clear()
                watcher.sync_due = False

    def mend(self, connection: object) -> None:
        """The watchers of `connection` are told everything anew."""
        for watcher in self.watchers:
            if watcher.connection is connection and not watcher.up:
                watcher.up = True
                self._tell_all(watcher)

    def _tell_all(self, watcher: Watcher) -> None:
        ours = (c for k, c in self.keys.items() if k.startswith(watcher.prefix))
        for change in sorted(ours, key=lambda c: c.revision):
            if change.value is not None or change.key in watcher.known:
                watcher.offer(change)
        for key in watcher.known - self.keys.keys():
            watcher.offer(Change(key, None, self.revision))
        watcher.sync_due = True
        watcher.ready.set()
