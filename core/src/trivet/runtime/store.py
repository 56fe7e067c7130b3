"""What the store can do: a bucket of keys with revisions, compare-and-swap, and watches.

One bucket a service (`KV_<service>`). The real one is `nats_store.NatsStore`, the twin
`trivet.testing.memory_store.MemoryStore`.

The law: a write that returned is on disk on a majority. `create` and `update` raise
`Refused(CONFLICT)` when the key is there or has another revision, and `Retry(UNAVAILABLE)` or
`Retry(TIMEOUT)` when they can't tell: then the write may have happened, and the caller reads
again before it goes on. Revisions grow over the whole bucket and are never reused; a deleted
key can be created again. Keys are bus subjects: tokens of `A-Za-z0-9_-=/` joined by dots.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Entry:
    """A key's value at a revision."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True)
class Change:
    """A step of a watch: `value` None means deleted (or not there)."""

    key: str
    value: bytes | None
    revision: int


@dataclass(frozen=True)
class Synced:
    """A step of a watch: everything that was there has now been told. Comes once at the
    start, and again after every reconnect (keys that vanished meanwhile come before it, as
    deletions)."""


class Store(Protocol):
    """A service's bucket."""

    @property
    def bucket(self) -> str:
        """The bucket's name, e.g. `compute`."""
        ...

    async def get(self, key: str) -> Entry | None:
        """The newest value, read from the leader (never stale); None where there is none."""
        ...

    async def create(self, key: str, value: bytes) -> int:
        """Write a key that is not there (or was deleted); returns its revision."""
        ...

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Write a key that still has `revision`; returns the new one."""
        ...

    async def delete(self, key: str, revision: int) -> None:
        """Delete a key that still has `revision`; gone already is fine."""
        ...

    def watch(self, prefix: str) -> AsyncGenerator[Change | Synced, None]:
        """Everything whose key begins with the tokens of `prefix` ('' is all; else it ends
        in '.'), then every change, in order of revision, for ever; lasts over reconnects, and
        a reconnect loses nothing (intermediate values may be skipped)."""
        ...
