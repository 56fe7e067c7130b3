"""The one compare-and-swap loop: what it writes, what it repeats, what it leaves alone."""

import asyncio

import pytest

from trivet.contracts.errors import CONFLICT, TIMEOUT, Retry
from trivet.contracts.model import Model
from trivet.runtime.cas import ATTEMPTS, change_value
from trivet.testing.memory_store import Fault, MemoryStore


class Count(Model):
    """A number."""

    n: int = 0


def more(there: Count | None) -> Count:
    return Count(n=(there.n if there else 0) + 1)


async def test_a_value_is_made_changed_and_removed() -> None:
    store = MemoryStore()
    assert await change_value(store, "k", Count, more) == Count(n=1)
    assert await change_value(store, "k", Count, more) == Count(n=2)
    assert await change_value(store, "k", Count, lambda there: None) is None
    assert await store.get("k") is None


async def test_what_stays_alike_is_not_written() -> None:
    store = MemoryStore()
    await change_value(store, "k", Count, more)
    writes = store.writes
    assert await change_value(store, "k", Count, lambda there: there) == Count(n=1)
    assert await change_value(store, "other", Count, lambda there: None) is None
    assert store.writes == writes


async def test_all_of_many_at_once_are_counted() -> None:
    store = MemoryStore()
    await asyncio.gather(*(change_value(store, "k", Count, more) for _ in range(20)))
    assert await change_value(store, "k", Count, lambda there: there) == Count(n=20)


async def test_a_change_that_always_comes_too_late_is_told() -> None:
    store = MemoryStore()
    await change_value(store, "k", Count, more)
    asked = []

    async def interfere() -> None:
        entry = await store.get("k")
        assert entry is not None
        await store.update(
            "k", Count(n=len(asked) + 100).model_dump_json().encode(), entry.revision
        )

    class Disturbed(MemoryStore):
        async def update(self, key: str, value: bytes, revision: int) -> int:
            asked.append(key)
            await interfere()
            return await super().update(key, value, revision)

    disturbed = Disturbed()
    disturbed._bucket = store._bucket
    with pytest.raises(Retry) as error:
        await change_value(disturbed, "k", Count, more)
    assert error.value.code is CONFLICT
    assert len(asked) == ATTEMPTS


async def test_what_the_store_cannot_tell_is_the_callers_to_ask_again() -> None:
    store = MemoryStore()
    store.fail(Fault.LOST_AFTER)
    with pytest.raises(Retry) as error:
        await change_value(store, "k", Count, more)
    assert error.value.code is TIMEOUT
    assert await change_value(store, "k", Count, lambda there: there) == Count(n=1)
