"""The outbox: whoever is killed wherever, each event is in the stream once, and in order."""

import asyncio
import random
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivet.contracts.event import CloudEvent, PendingEvent, ResourceFacts
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.volume import VOLUME
from trivet.runtime.bus import DEDUPE_WINDOW_S
from trivet.runtime.clock import SystemClock
from trivet.runtime.outbox import (
    CLEAR_AFTER_S,
    OutboxPublisher,
    RawRecord,
    has_work,
    surely_in_window,
)
from trivet.runtime.record import OutboxItem, Published, Record, cleared, next_outbox
from trivet.runtime.store import Synced
from trivet.testing.counted_volumes import (
    check,
    fresh_volume,
    publish,
    stored,
    volumes_in,
    write_at_random,
)
from trivet.testing.memory_bus import Faults, MemoryBroker, MemoryBus
from trivet.testing.memory_store import Fault, MemoryStore
from trivet.testing.suites.bus import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def pending(n: int, at: datetime = NOW) -> PendingEvent:
    facts = ResourceFacts(
        kind="Volume", id=ResourceId("v-1"), name="v", project=None, generation=n, phase="ready"
    )
    return PendingEvent(type="trivet.storage.volume.edited.v1", subject="v-1", time=at, data=facts)


class TestRecord:
    def test_an_item_keeps_its_id_over_later_writes(self) -> None:
        none = Published()
        first = next_outbox("storage", (), 0, (pending(1), pending(2)), none)
        assert [i.id("storage", 7) for i in first] == ["storage/7/0", "storage/7/1"]
        second = next_outbox("storage", first, 7, (pending(3),), none)
        third = next_outbox("storage", second, 9, (), none)
        wanted = ["storage/7/0", "storage/7/1", "storage/9/0"]
        assert [i.id("storage", 9) for i in second] == wanted
        assert [i.id("storage", 12) for i in third] == wanted

    def test_what_is_told_is_left_out_of_the_next_write(self) -> None:
        told = Published()
        first = next_outbox("storage", (), 0, (pending(1), pending(2)), told)
        told.add("storage/7/0")
        second = next_outbox("storage", first, 7, (), told)
        assert [i.id("storage", 8) for i in second] == ["storage/7/1"]

    def test_clearing_leaves_the_revision_of_the_resource(self) -> None:
        told = Published()
        record = Record[int](resource=1, outbox=next_outbox("b", (), 0, (pending(1),), told))
        told.add("b/7/0")
        bare = cleared("b", record, 7, told)
        assert bare.outbox == ()
        assert bare.written_at(8) == 7
        assert cleared("b", bare, 8, told).written_at(9) == 7


def test_work_is_seen_from_the_bytes() -> None:
    item = OutboxItem(event=pending(1), n=0)
    plain = RawRecord(resource={"name": 'a "outbox":[{ b', "gone": 1})
    assert not has_work(plain.model_dump_json().encode())
    assert has_work(plain.model_copy(update={"outbox": (item,)}).model_dump_json().encode())
    assert has_work(plain.model_copy(update={"gone": True}).model_dump_json().encode())
    assert not has_work(b'{"holder":"n1","turn":3}')


@pytest.mark.parametrize(
    ("age_s", "sure"),
    [
        (0, True),
        (-30, True),
        (DEDUPE_WINDOW_S / 2, True),
        (DEDUPE_WINDOW_S / 2 + 1, False),
        (86400, False),
        (-3600, False),
    ],
)
def test_whether_the_stream_still_knows_an_id(age_s: float, sure: bool) -> None:
    assert surely_in_window(NOW - timedelta(seconds=age_s), NOW) is sure


class Node:
    """One process: its own connection, its own memory, a writer and a publisher."""

    def __init__(self, broker: MemoryBroker) -> None:
        self.bus = MemoryBus(broker, "storage")
        self.store = MemoryStore(self.bus, "storage")
        self.published = Published()

    async def publish(self) -> None:
        publisher = OutboxPublisher(
            self.bus, self.store, SystemClock(), self.published, clear_after_s=0.003
        )
        await publish(publisher, self.store)

    async def write(self, chance: random.Random) -> None:
        volumes = volumes_in(self.store, self.published)
        while True:
            await write_at_random(volumes, chance)


async def settled(store: MemoryStore) -> bool:
    """Whether no record has anything to tell."""
    async for step in store.watch(""):
        if isinstance(step, Synced):
            return True
        if step.value is not None and has_work(step.value):
            return False
    return True


def events_of(broker: MemoryBroker) -> list[CloudEvent]:
    return [CloudEvent.model_validate_json(m.data) for m, _, _ in broker.events]


async def finish(broker: MemoryBroker) -> None:
    """A publisher that nobody kills tells what is left."""
    node = Node(broker)
    task = asyncio.create_task(node.publish())
    async with asyncio.timeout(20):
        while not await settled(node.store):  # noqa: ASYNC110 - asks the store
            await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def campaign(seed: int) -> tuple[MemoryBroker, list[str]]:
    """Writers and publishers, two at a time, killed after a random number of steps, while
    writes and acknowledgements get lost; then one that finishes. What is wrong, if anything."""
    chance, broker = random.Random(seed), MemoryBroker()
    broker.faults.lose_append_ack = lambda subject: chance.random() < 0.1
    broker.faults.lose_request = lambda subject: chance.random() < 0.1
    for _ in range(chance.randint(2, 6)):
        node, other = Node(broker), Node(broker)
        for _ in range(chance.randint(0, 4)):
            at_once = chance.choice((node, other)).store
            at_once.fail(chance.choice(list(Fault)), times=chance.randint(1, 2))
        lives = [node.write(chance), node.publish(), other.publish(), other.write(chance)]
        tasks = [asyncio.create_task(life) for life in lives]
        chance.shuffle(tasks)
        for task in tasks:
            for _ in range(chance.randint(0, 120)):
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                await asyncio.sleep(0.006)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    broker.faults = Faults()
    await finish(broker)
    return broker, check(events_of(broker), await stored(MemoryStore(broker, "storage")))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_killed_at_any_step_each_event_is_told_once(seed: int) -> None:
    _, wrong = asyncio.run(campaign(seed))
    assert wrong == []


def test_the_campaign_tells_events_and_removes_records() -> None:
    kinds: set[str] = set()
    for seed in range(6):
        broker, _ = asyncio.run(campaign(seed))
        kinds |= {e.type.split(".")[3] for e in events_of(broker)}
        left = broker.bucket("storage").keys.values()
        assert not any(c.value and b'"gone":true' in c.value for c in left)
    assert kinds == {"created", "edited", "deleted"}


async def test_the_checker_sees_lost_and_doubled_and_misplaced_events() -> None:
    broker = MemoryBroker()
    node = Node(broker)
    volumes = volumes_in(node.store)
    made = await volumes.create(fresh_volume("v0"))
    await volumes.write(made, made.with_spec(made.spec.model_copy(update={"size_gib": 2})))
    await finish(broker)
    events, present = events_of(broker), await stored(node.store)
    assert check(events, present) == []
    assert check(events[:1], present)
    assert check(events[1:], present)
    assert check([], present)
    assert check(events[::-1], present)
    again = events[1].model_copy(update={"id": "storage/99/0"})
    assert check([*events, again], present)
    assert check([*events, events[1]], present)


async def test_older_than_the_window_it_is_looked_for_first() -> None:
    """Told, not cleared, and found again when the stream has forgotten the id."""
    broker = MemoryBroker(dedupe_window_s=0.0)
    node = Node(broker)
    old = SystemClock().now() - timedelta(seconds=DEDUPE_WINDOW_S)
    untold = [pending(n, old) for n in (1, 2)]
    record = RawRecord(
        resource={}, outbox=next_outbox("storage", (), 0, tuple(untold), Published())
    )
    revision = await node.store.create("volume.lab.v", record.model_dump_json().encode())
    subject = "trivet.evt.storage.volume.edited.v1"
    broker.append(subject, b"told before", f"storage/{revision}/0")
    await finish(broker)
    assert [id_ for _, id_, _ in broker.events] == [f"storage/{revision}/{n}" for n in (0, 1)]


async def test_an_outage_delays_and_loses_nothing() -> None:
    broker = MemoryBroker()
    node, writer = Node(broker), Node(broker)
    task = asyncio.create_task(node.publish())
    await node.bus.drop()
    await volumes_in(writer.store).create(fresh_volume("v0"))
    await node.bus.restore()
    await until(lambda: len(broker.events) == 1)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


class HeldClock(SystemClock):
    """Monotonic time stands still until it is moved on; sleeps are short."""

    at = 100.0

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0.001)


async def test_while_events_come_no_record_is_cleared() -> None:
    """Each is told at once; clearing them waits for a quiet moment."""
    broker = MemoryBroker()
    node, clock = Node(broker), HeldClock()
    volumes = volumes_in(node.store)
    publisher = OutboxPublisher(node.bus, node.store, clock, node.published)
    task = asyncio.create_task(publish(publisher, node.store))
    for n in range(6):
        await volumes.create(fresh_volume(f"v{n}"))
        await until(lambda n=n: len(broker.events) == n + 1)
        clock.at += CLEAR_AFTER_S * 0.9
        await asyncio.sleep(0.01)
    left = [c for c in broker.bucket("storage").keys.values() if c.value and has_work(c.value)]
    assert len(left) == 6
    clock.at += CLEAR_AFTER_S
    async with asyncio.timeout(20):
        while not await settled(node.store):  # noqa: ASYNC110 - asks the store
            await asyncio.sleep(0.005)
    assert len(broker.events) == 6
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_record_that_has_long_been_still_is_cleared_among_events() -> None:
    broker = MemoryBroker()
    node = Node(broker)
    never_quiet_s, latest_s = 3600.0, 0.02
    publisher = OutboxPublisher(
        node.bus,
        node.store,
        SystemClock(),
        node.published,
        clear_after_s=never_quiet_s,
        clear_latest_s=latest_s,
    )
    task = asyncio.create_task(publish(publisher, node.store))
    await volumes_in(node.store).create(fresh_volume("still"))
    async with asyncio.timeout(20):
        while not await settled(node.store):  # noqa: ASYNC110 - asks the store
            await asyncio.sleep(0.005)
    assert len(broker.events) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_clearing_is_no_conflict_for_who_read_before_it() -> None:
    broker = MemoryBroker()
    node = Node(broker)
    volumes = volumes_in(node.store)
    made = await volumes.create(fresh_volume("v0"))
    await finish(broker)
    entry = await node.store.get(VOLUME.key("lab", "v0"))
    assert entry is not None
    assert entry.revision > made.meta.revision
    spec = made.spec.model_copy(update={"size_gib": 2})
    again = await volumes_in(node.store).write(made, made.with_spec(spec))
    assert again.meta.revision > entry.revision
