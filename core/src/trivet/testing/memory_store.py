"""The store in memory: the twin of the real one, as strict, with faults on demand.

Many `MemoryStore` may share a bucket (through the broker of their `MemoryBus`): services and
their restarts see each other's writes as with the real one. A fault strikes a write before it
happens or after it (the writer can't tell), or cuts the connection; each is asked for by
`fail`, once or as often as wanted.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from enum import StrEnum

from trivet.contracts.errors import CONFLICT, TIMEOUT, UNAVAILABLE, Refused, Retry
from trivet.runtime.store import Change, Entry, Synced
from trivet.runtime.subjects import filter_of
from trivet.testing.memory_bus import MemoryBroker, MemoryBus

_KEY = re.compile(r"[A-Za-z0-9_\-=/]+(\.[A-Za-z0-9_\-=/]+)*")


class Fault(StrEnum):
    """How a write fails: not done and told so, not done and unknown, done and unknown."""

    REFUSED_CONNECTION = "refused_connection"
    LOST_BEFORE = "lost_before"
    LOST_AFTER = "lost_after"


@dataclass
class _Armed:
    fault: Fault
    when: Callable[[str], bool]
    times: int


def _any_key(key: str) -> bool:
    return True


class MemoryStore:
    """A service's bucket; see `trivet.runtime.store` for the law."""

    def __init__(self, bus: MemoryBus | MemoryBroker | None = None, bucket: str = "test") -> None:
        if not isinstance(bus, MemoryBus):
            bus = MemoryBus(bus or MemoryBroker(), bucket)
        self._bus = bus
        self._bucket = bus.broker.bucket(bucket)
        self._armed: list[_Armed] = []
        self.writes = 0

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._bucket.name

    async def get(self, key: str) -> Entry | None:
        """The newest value, or None."""
        _check_key(key)
        await self._cross()
        return self._bucket.entry(key)

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that is not there."""
        return await self._write(key, value, 0)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write a key that still has `revision`."""
        return await self._write(key, value, revision)

    async def delete(self, key: str, revision: int) -> None:
        """Delete a key that still has `revision`."""
        await self._write(key, None, revision)

    async def watch(self, prefix: str) -> AsyncGenerator[Change | Synced, None]:
        """Everything below `prefix`, then every change."""
        filter_of(prefix)
        watcher = self._bucket.watch(prefix, self._bus, up=self._bus.connected)
        try:
            while True:
                step = watcher.take()
                if step is None:
                    await watcher.ready.wait()
                else:
                    yield step
        finally:
            self._bucket.watchers.remove(watcher)

    def fail(self, fault: Fault, *, when: Callable[[str], bool] = _any_key, times: int = 1) -> None:
        """Let the next `times` writes of keys that fit `when` fail so."""
        self._armed.append(_Armed(fault, when, times))

    async def drop_connection(self) -> None:
        """Cut the connection (the whole bus's) until `restore_connection`."""
        await self._bus.drop()

    async def restore_connection(self) -> None:
        """Mend the connection; watches are told everything anew."""
        await self._bus.restore()

    async def _write(self, key: str, value: bytes | None, expected: int) -> int:
        _check_key(key)
        self._bus.check(value or b"")
        fault = self._strike(key)
        if fault is Fault.REFUSED_CONNECTION:
            raise Retry(UNAVAILABLE, f"{key}: not connected (an asked-for fault)")
        await self._cross()
        if fault is Fault.LOST_BEFORE:
            raise Retry(TIMEOUT, f"{key}: no acknowledgement (an asked-for fault)")
        present = self._bucket.entry(key)
        if present is None and value is None:
            return 0
        if (present.revision if present else 0) != expected or (expected and present is None):
            there = f"has revision {present.revision}" if present else "is not there"
            raise Refused(CONFLICT, f"{self.bucket}/{key} {there}, not {expected}")
        revision = self._bucket.write(key, value)
        self.writes += 1
        await asyncio.sleep(0)
        if fault is Fault.LOST_AFTER or not self._bus.connected:
            raise Retry(TIMEOUT, f"{key}: no acknowledgement (an asked-for fault)")
        return revision

    def _strike(self, key: str) -> Fault | None:
        for armed in self._armed:
            if armed.when(key):
                armed.times -= 1
                if armed.times <= 0:
                    self._armed.remove(armed)
                return armed.fault
        return None

    async def _cross(self) -> None:
        """The way to the server: others run meanwhile, as they do on a network."""
        self._bus.check(b"")
        await asyncio.sleep(0)
        self._bus.check(b"")

    def __repr__(self) -> str:
        return f"<MemoryStore {self.bucket} rev={self._bucket.revision}>"


def _check_key(key: str) -> None:
    if not _KEY.fullmatch(key):
        raise ValueError(f"not a key: {key!r}")
