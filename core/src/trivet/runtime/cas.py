"""The one loop around compare-and-swap: read a key, compute what it should hold, write that.

Whoever keeps a record of its own in the store (a ledger, a claim, a pointer) says what the
record becomes as a pure function of what it is; here it is read, written against the revision
that was read, and computed anew after a conflict. What the store can't tell (`Retry`) is the
caller's to ask again: the function is then called with what is there by then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from trivet.contracts.errors import CONFLICT, Refused, Retry
from trivet.contracts.model import Model
from trivet.runtime.store import Entry, Store

ATTEMPTS = 50
AGAIN_S = 0.2

ModelT = TypeVar("ModelT", bound=Model)


async def change_value(
    store: Store,
    key: str,
    model: type[ModelT],
    change: Callable[[ModelT | None], ModelT | None],
) -> ModelT | None:
    """Make `key` hold `change(what it holds)`, where None is 'not there'; what it holds then.

    `change` is called again after each conflict, and may raise. Nothing is written where it
    returns what it was given. Raises `Retry(CONFLICT)` when too many change the key at once.
    """
    for _ in range(ATTEMPTS):
        entry = await store.get(key)
        before = model.model_validate_json(entry.value) if entry else None
        after = change(before)
        if after == before:
            return after
        try:
            await _write(store, key, entry, after)
        except Refused as error:
            if error.code is not CONFLICT:
                raise
        else:
            return after
    raise Retry(CONFLICT, f"{key} is being changed by too many at once", retry_after_s=AGAIN_S)


async def _write(store: Store, key: str, entry: Entry | None, after: Model | None) -> None:
    if entry is None:
        assert after is not None, "nothing to nothing is no change"
        await store.create(key, after.model_dump_json().encode())
    elif after is None:
        await store.delete(key, entry.revision)
    else:
        await store.update(key, after.model_dump_json().encode(), entry.revision)
