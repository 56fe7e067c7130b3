"""Ledgers in the store: claims that come together share a write, and each gets its own answer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from trivet.contracts.errors import Retry
from trivet.contracts.model import GIB, ResourceId
from trivet.contracts.resource import Meta
from trivet.contracts.storage.pool import Pool, PoolMember, PoolSpec, PoolStatus, PoolUsage
from trivet.storage.domain.space import SpaceClaim
from trivet.storage.ledgers import Ledgers
from trivet.testing.memory_bus import MemoryBroker
from trivet.testing.memory_store import Fault, MemoryStore

ROOM = 10


def pool() -> Pool:
    meta = Meta(id=ResourceId("pool-1"), name="default", created_at=datetime.now(UTC))
    spec = PoolSpec(members=(PoolMember(node="n1", file_gib=ROOM),), overcommit=1.0)
    usage = PoolUsage(node="n1", size_bytes=ROOM * GIB, used_bytes=0)
    return Pool(meta=meta, spec=spec, status=PoolStatus(usage=(usage,)))


def a_gib(thin: bool = False) -> SpaceClaim:
    return SpaceClaim(key="volume.p.v", size_bytes=GIB, thin=thin)


async def claims(ledgers: Ledgers, count: int) -> list[str | BaseException | None]:
    asked = (ledgers.claim(pool(), "n1", ResourceId(f"volume-{n}"), a_gib()) for n in range(count))
    return await asyncio.gather(*asked, return_exceptions=True)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(MemoryBroker())


async def test_claims_that_come_together_share_a_write(store: MemoryStore) -> None:
    ledgers = Ledgers(store)
    assert await claims(ledgers, ROOM) == [None] * ROOM
    assert len(ledgers.read(ResourceId("pool-1"), "n1").claims) == ROOM
    assert store.writes <= 2


async def test_what_there_is_no_room_for_is_told_to_those_alone(store: MemoryStore) -> None:
    ledgers = Ledgers(store)
    answers = await claims(ledgers, ROOM + 3)
    assert answers[:ROOM] == [None] * ROOM
    assert all(isinstance(answer, str) for answer in answers[ROOM:])
    assert len(ledgers.read(ResourceId("pool-1"), "n1").claims) == ROOM


async def test_two_instances_promise_no_more_than_there_is(store: MemoryStore) -> None:
    one, other = Ledgers(store), Ledgers(store)
    asked = [
        ledgers.claim(pool(), "n1", ResourceId(f"volume-{i}-{n}"), a_gib())
        for n in range(ROOM)
        for i, ledgers in enumerate((one, other))
    ]
    answers = await asyncio.gather(*asked)
    assert answers.count(None) == ROOM


async def test_a_write_that_fails_is_told_to_all_that_shared_it(store: MemoryStore) -> None:
    ledgers = Ledgers(store)
    store.fail(Fault.LOST_BEFORE, times=2)
    assert all(isinstance(answer, Retry) for answer in await claims(ledgers, 4))
    assert await claims(ledgers, 4) == [None] * 4


class GatedStore(MemoryStore):
    """A store whose writes wait to be let through, one by one."""

    def __init__(self) -> None:
        super().__init__(MemoryBroker())
        self.gate = asyncio.Semaphore(0)

    async def create(self, key: str, value: bytes) -> int:
        await self.gate.acquire()
        return await super().create(key, value)

    async def update(self, key: str, value: bytes, revision: int) -> int:
        await self.gate.acquire()
        return await super().update(key, value, revision)


async def as_far_as_it_goes() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_whoever_is_stopped_leaves_those_it_wrote_for_to_try_again() -> None:
    store = GatedStore()
    ledgers = Ledgers(store)
    tasks = [
        asyncio.create_task(ledgers.claim(pool(), "n1", ResourceId(f"volume-{n}"), a_gib()))
        for n in range(4)
    ]
    await as_far_as_it_goes()
    store.gate.release()
    await as_far_as_it_goes()
    tasks[1].cancel()
    first, stopped, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert first is None
    assert isinstance(stopped, asyncio.CancelledError)
    assert all(isinstance(answer, Retry) for answer in others)
    store.gate.release()
    assert await claims(ledgers, 4) == [None] * 4
