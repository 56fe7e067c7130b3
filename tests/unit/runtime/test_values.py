"""Small records with a copy: what is read, what is guessed, and what the store has to say."""

import asyncio

from trivet.contracts.model import Model
from trivet.runtime.store import Change
from trivet.runtime.values import Values
from trivet.testing.memory_store import MemoryStore


class Count(Model):
    """A number."""

    n: int = 0


class Counted(MemoryStore):
    """Counts what is read."""

    reads = 0

    async def get(self, key):  # type: ignore[no-untyped-def]
        self.reads += 1
        return await super().get(key)


def more(there: Count | None) -> Count:
    return Count(n=(there.n if there else 0) + 1)


def made() -> tuple[Counted, Values[Count]]:
    store = Counted()
    return store, Values(store, "c.", Count)


async def test_what_is_known_is_changed_without_a_read() -> None:
    store, values = made()
    assert await values.change("c.k", more) == Count(n=1)
    assert await values.change("c.k", more) == Count(n=2)
    assert store.reads == 0
    assert values.peek("c.k") == Count(n=2)


async def test_a_stale_copy_costs_another_try_and_no_wrong_write() -> None:
    store, mine = made()
    other = Values(store, "c.", Count)
    await mine.change("c.k", more)
    await other.change("c.k", more)
    assert await mine.change("c.k", more) == Count(n=3)
    assert store.reads == 2


async def test_all_of_many_writers_are_counted() -> None:
    store, _ = made()
    writers = [Values(store, "c.", Count) for _ in range(20)]
    await asyncio.gather(*(w.change("c.k", more) for w in writers))
    assert await writers[0].change("c.k", lambda there: there) == Count(n=20)


async def test_that_nothing_is_to_be_written_is_not_believed_of_a_copy() -> None:
    store, mine = made()
    other = Values(store, "c.", Count)
    await mine.change("c.k", more)
    await other.change("c.k", lambda there: None)
    assert await mine.change("c.k", lambda there: there or Count(n=7)) == Count(n=7)
    assert await store.get("c.k") is not None


async def test_what_the_feed_tells_counts_unless_it_is_old() -> None:
    store, values = made()
    await values.change("c.k", more)
    entry = await store.get("c.k")
    assert entry is not None
    values.take(Change("c.k", b'{"n":0}', entry.revision - 1))
    assert values.peek("c.k") == Count(n=1)
    values.take(Change("c.k", b'{"n":9}', entry.revision + 1))
    assert values.peek("c.k") == Count(n=9)
    values.take(Change("c.k", None, entry.revision + 2))
    assert values.peek("c.k") is None


async def test_a_removed_value_is_there_until_the_feed_tells_of_it() -> None:
    _, values = made()
    await values.change("c.k", more)
    await values.change("c.k", lambda there: None)
    assert values.peek("c.k") == Count(n=1)
    assert await values.change("c.k", more) == Count(n=1)
