"""Alarms of a service: raised, cleared, told to sinks, across a crash of the leader."""

import asyncio
import dataclasses
import time
from datetime import UTC, datetime

import pytest

from trivet.contracts.alarm import AckRequest, AlarmRule, AlarmState, Severity
from trivet.contracts.endpoint import GetRequest, ListRequest
from trivet.contracts.errors import INVALID, NOT_FOUND, Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta
from trivet.contracts.storage.alarms import ALARM
from trivet.contracts.storage.endpoints.alarms import CRUD
from trivet.contracts.storage.pool import POOL, Pool, PoolMember, PoolSpec, PoolStatus, PoolUsage
from trivet.runtime import alarm_plan
from trivet.runtime.alarms import keep_alarms, serve_alarms
from trivet.testing.fakes import plugin as fakes
from trivet.testing.fakes.alarm_sink import FakeAlarmSink
from trivet.testing.harness import Harness

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def full(pool: Pool, now: datetime) -> str | None:
    used = sum(u.used_bytes for u in pool.status.usage)
    return f"{pool.meta.name} has {used} bytes" if used > 90 else None


RULE = AlarmRule(
    "test-full", POOL, Severity.CRITICAL, "A pool is full", "Make room", full, clear_s=0.05
)


def pool(name: str, used: int) -> Pool:
    usage = PoolUsage(node="n1", size_bytes=100, used_bytes=used)
    return Pool(
        meta=Meta(id=ResourceId(f"pool-{name}"), name=name, created_at=NOW),
        spec=PoolSpec(members=(PoolMember(node="n1"),)),
        status=PoolStatus(usage=(usage,)),
    )


class World:
    """A storage service that keeps pools and their alarms, and nothing else."""

    def __init__(self, folder, rule=RULE, sinks=()):
        self.rule = rule
        self.harness = Harness(folder, plugins=(fakes,), alarms={"sinks": sinks})
        self.sink = FakeAlarmSink.worlds.at(folder / "state" / "storage" / "fake-alarm-sink")

    async def start(self):
        async def bootstrap(service):
            service.collection(POOL)
            await keep_alarms(service, ALARM, (self.rule,))
            serve_alarms(service, ALARM, CRUD)

        self.service = await self.harness.start("storage", bootstrap)

    @property
    def pools(self):
        return self.service.collection(POOL)

    async def use(self, name, used):
        usage = (PoolUsage(node="n1", size_bytes=100, used_bytes=used),)
        await self.pools.mutate(POOL.key(None, name), lambda p: p.with_status(usage=usage))

    async def alarms(self, state=None):
        label = f"state={state}" if state else None
        return (await self.harness.call(CRUD.list, ListRequest(label=label))).items

    async def until(self, what, holds):
        deadline = time.monotonic() + 60
        while not holds(found := await what()):
            assert time.monotonic() < deadline, f"still {found}"
            await asyncio.sleep(0.02)
        return found


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    async with world.harness:
        await world.start()
        yield world


async def test_an_alarm_comes_and_goes_with_its_cause(world):
    await world.pools.create(pool("a", 10))
    await world.pools.create(pool("b", 95))
    (alarm,) = await world.until(world.alarms, len)
    assert alarm.meta.name == RULE.alarm_name("pool-b")
    assert alarm.status.cause == "b has 95 bytes"
    assert alarm.status.subject.name == "b"
    await world.use("b", 97)
    await world.until(world.alarms, lambda a: a[0].status.cause == "b has 97 bytes")
    await world.use("b", 20)
    (alarm,) = await world.until(lambda: world.alarms("cleared"), len)
    assert alarm.status.cleared_at is not None
    assert alarm.status.change == 2


async def test_its_events_are_told(world):
    events = []

    async def hear():
        async for message in world.service.runtime.bus.events(
            "trivet.evt.storage.alarm.>", since_seq=1
        ):
            events.append(message.subject.split(".")[-2])

    listening = asyncio.create_task(hear())
    await world.pools.create(pool("b", 95))
    await world.until(world.alarms, len)
    await world.use("b", 5)
    await world.until(lambda: world.alarms("cleared"), len)
    deadline = time.monotonic() + 60
    while "cleared" not in events:
        assert time.monotonic() < deadline, events
        await asyncio.sleep(0.02)
    listening.cancel()
    assert [e for e in events if e in ("raised", "cleared")] == ["raised", "cleared"]


async def test_somebody_knows(world):
    await world.pools.create(pool("b", 95))
    (alarm,) = await world.until(world.alarms, len)
    name = alarm.meta.name
    known = await world.harness.call(CRUD.ack, AckRequest(name=name, note="on it"))
    assert known.spec.acknowledged_by == "service:test"
    assert known.spec.note == "on it"
    assert known.settled()
    await world.use("b", 5)
    await world.until(lambda: world.alarms("cleared"), len)
    with pytest.raises(Refused) as refused:
        await world.harness.call(CRUD.ack, AckRequest(name=name))
    assert refused.value.code is INVALID
    with pytest.raises(Refused) as refused:
        await world.harness.call(CRUD.ack, AckRequest(name="no-such"))
    assert refused.value.code is NOT_FOUND


async def test_it_ends_with_what_it_spoke_of(world):
    await world.pools.create(pool("b", 95))
    await world.until(world.alarms, len)
    found = world.pools.get("b")
    await world.pools.remove(found)
    await world.until(lambda: world.alarms("cleared"), len)


async def test_a_new_leader_goes_on_where_the_old_one_was(world):
    await world.pools.create(pool("b", 95))
    await world.pools.create(pool("c", 95))
    await world.until(world.alarms, lambda a: len(a) == 2)
    await world.harness.crash("storage")
    await world.start()
    await world.use("b", 5)
    (alarm,) = await world.until(lambda: world.alarms("cleared"), len)
    assert alarm.status.subject.name == "b"
    (still,) = await world.alarms("raised")
    assert (still.status.subject.name, still.status.change) == ("c", 1), "not raised again"


async def test_many_at_once_are_told_as_one(world, monkeypatch):
    monkeypatch.setattr(alarm_plan, "BOUND", 3)
    for number in range(8):
        await world.pools.create(pool(f"p{number}", 95))
    found = await world.until(
        lambda: world.alarms("raised"), lambda a: any("5 more" in x.status.cause for x in a)
    )
    assert len(found) == 4
    for number in range(8):
        await world.use(f"p{number}", 5)
    await world.until(lambda: world.alarms("raised"), lambda a: not a)


async def test_a_cause_that_does_not_last_is_no_alarm(tmp_path):
    world = World(tmp_path, dataclasses.replace(RULE, after_s=0.4))
    async with world.harness:
        await world.start()
        await world.pools.create(pool("b", 95))
        await world.use("b", 5)
        await world.pools.create(pool("c", 95))
        (alarm,) = await world.until(world.alarms, len)
        assert alarm.status.subject.name == "c"


class TestSinks:
    @pytest.fixture
    async def world(self, tmp_path, monkeypatch):
        monkeypatch.setattr(alarm_plan, "FIRST_DELIVERY_BACKOFF_S", 0.02)
        world = World(tmp_path, sinks=("fake-alarm-sink",))
        async with world.harness:
            await world.start()
            yield world

    async def told(self, world):
        return [(n.subject.name, n.state) for n in world.sink.told]

    async def test_each_change_is_told(self, world):
        await world.pools.create(pool("b", 95))
        await world.until(lambda: self.told(world), len)
        await world.use("b", 5)
        await world.until(lambda: self.told(world), lambda t: len(t) == 2)
        assert await self.told(world) == [("b", AlarmState.RAISED), ("b", AlarmState.CLEARED)]

    async def test_what_could_not_be_told_is_told_later(self, world):
        world.sink.reachable = False
        await world.pools.create(pool("b", 95))

        async def failed():
            return [
                a for a in await world.alarms() for d in a.status.deliveries.values() if d.failures
            ]

        await world.until(failed, len)
        world.sink.reachable = True
        await world.until(lambda: self.told(world), len)

    async def test_nothing_is_lost_when_the_leader_dies(self, world):
        world.sink.reachable = False
        await world.pools.create(pool("b", 95))
        await world.until(world.alarms, len)
        await world.harness.crash("storage")
        world.sink.reachable = True
        await world.start()
        await world.until(lambda: self.told(world), len)


async def test_one_of_another_service_is_not_there(world):
    with pytest.raises(Refused) as refused:
        await world.harness.call(CRUD.get, GetRequest(name="vm-failed-0123456789"))
    assert refused.value.code is NOT_FOUND
