"""Small records of one's own in the store (pointers, ledgers), with a copy that the feed keeps.

`cas.change_value` reads before it writes. Who is fed knows already what is there, and may guess:
the write names the revision of the guess, so a stale one costs another try and never a wrong
write. Where the guess says that nothing needs writing, the store is asked, for a copy may be
behind. What is read alone (`peek`) is as of about now, as everything from a copy is.

Values are kept as bytes, and read when they are asked for: most of them never are. A deletion is
in the copy once the feed tells it, and not before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from trivet.contracts.errors import CONFLICT, Refused, Retry
from trivet.contracts.model import Model
from trivet.runtime.cas import AGAIN_S, ATTEMPTS
from trivet.runtime.store import Change, Entry, Store

ModelT = TypeVar("ModelT", bound=Model)

READ_BOUND = 64
"""So many values are kept as they were read last; the few that are large are asked for often."""


class Values(Generic[ModelT]):
    """The records below `prefix`, each a `model`. Works unfed too: then every guess is that
    nothing is there."""

    def __init__(self, store: Store, prefix: str, model: type[ModelT]) -> None:
        self.prefix = prefix
        self._store = store
        self._model = model
        self._copy: dict[str, Entry] = {}
        self._models: dict[str, tuple[int, ModelT]] = {}

    def take(self, change: Change) -> None:
        """A step of the feed."""
        known = self._copy.get(change.key)
        if known is not None and change.revision <= known.revision:
            return
        if change.value is None:
            self._copy.pop(change.key, None)
        else:
            self._copy[change.key] = Entry(change.key, change.value, change.revision)

    def peek(self, key: str) -> ModelT | None:
        """What `key` holds, from the copy."""
        return self._read(self._copy.get(key))

    async def change(
        self, key: str, change: Callable[[ModelT | None], ModelT | None]
    ) -> ModelT | None:
        """Make `key` hold `change(what it holds)`, as `cas.change_value` does."""
        entry, guessed = self._copy.get(key), True
        for _ in range(ATTEMPTS):
            before = self._read(entry)
            after = change(before)
            if after != before:
                try:
                    await self._write(key, entry, after)
                except Refused as error:
                    if error.code is not CONFLICT:
                        raise
                else:
                    return after
            elif not guessed:
                return after
            entry, guessed = await self._fresh(key), False
        raise Retry(CONFLICT, f"{key} is being changed by too many at once", retry_after_s=AGAIN_S)

    def _read(self, entry: Entry | None) -> ModelT | None:
        if entry is None:
            return None
        known = self._models.get(entry.key)
        if known is not None and known[0] == entry.revision:
            return known[1]
        found = self._model.model_validate_json(entry.value)
        self._keep(entry, found)
        return found

    def _keep(self, entry: Entry, model: ModelT) -> None:
        if len(self._models) >= READ_BOUND:
            self._models.clear()
        self._models[entry.key] = (entry.revision, model)

    async def _fresh(self, key: str) -> Entry | None:
        entry = await self._store.get(key)
        if entry is None:
            self._copy.pop(key, None)
        else:
            self._learn(entry)
        return entry

    async def _write(self, key: str, entry: Entry | None, after: ModelT | None) -> None:
        if after is None:
            assert entry is not None, "nothing to nothing is no change"
            await self._store.delete(key, entry.revision)
            return
        value = after.model_dump_json().encode()
        if entry is None:
            revision = await self._store.create(key, value)
        else:
            revision = await self._store.update(key, value, entry.revision)
        written = Entry(key, value, revision)
        self._learn(written)
        self._keep(written, after)

    def _learn(self, entry: Entry) -> None:
        known = self._copy.get(entry.key)
        if known is None or known.revision < entry.revision:
            self._copy[entry.key] = entry
