"""One watch over a service's bucket, told on to whoever holds a copy of part of it.

Collections, claims and assignments all live in one bucket; one watch feeds them all, in order,
so that a service costs the store one consumer and its copies agree with each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from trivet.runtime.store import Change, Store, Synced

log = logging.getLogger(__name__)

Sink = Callable[[Change], None]


class Feed:
    """Feeds sinks by key prefix from one watch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sinks: list[tuple[str, Sink]] = []
        self._synced = asyncio.Event()

    def add(self, prefix: str, sink: Sink) -> None:
        """Tell `sink` every change of keys that begin with `prefix`; before `run`."""
        self._sinks.append((prefix, sink))

    async def synced(self) -> None:
        """Wait until everything that was there has been told once."""
        await self._synced.wait()

    async def run(self) -> None:
        """Watch until cancelled."""
        async for step in self._store.watch(""):
            if isinstance(step, Synced):
                self._synced.set()
                continue
            for prefix, sink in self._sinks:
                if step.key.startswith(prefix):
                    self._tell(sink, step)

    def _tell(self, sink: Sink, change: Change) -> None:
        try:
            sink(change)
        except Exception:
            # One unreadable record (a newer peer's, a damaged one) must not blind the service.
            log.exception("can't take in %s at revision %d", change.key, change.revision)
