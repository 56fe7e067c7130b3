"""The outbox on a real server: writer and publisher in a process of their own, killed, as the
server is, at seeded points. In the end each event is in the stream once, in order."""

import asyncio
import random
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from trivet.contracts.event import CloudEvent
from trivet.runtime.clock import SystemClock
from trivet.runtime.nats_bus import NatsBus
from trivet.runtime.nats_store import NatsStore
from trivet.runtime.outbox import OutboxPublisher, has_work
from trivet.runtime.record import Published
from trivet.runtime.store import Synced
from trivet.testing.counted_volumes import check, publish, stored
from trivet.testing.nats import NatsServer

CHILD = """
import asyncio, random, sys
from pathlib import Path
from trivet.runtime.clock import SystemClock
from trivet.runtime.nats_bus import NatsBus
from trivet.runtime.nats_store import NatsStore
from trivet.runtime.outbox import OutboxPublisher
from trivet.runtime.record import Published
from trivet.testing.counted_volumes import publish, volumes_in, write_at_random

async def main(url, seed_file, seed):
    bus = await NatsBus.connect([url], service="storage", name="w", seed_file=Path(seed_file))
    store = await NatsStore.open(bus, "storage")
    published, chance = Published(), random.Random(int(seed))
    publisher = OutboxPublisher(bus, store, SystemClock(), published, clear_after_s=0.05)
    publishing = asyncio.create_task(publish(publisher, store))
    volumes = volumes_in(store, published)
    while not publishing.done():
        await write_at_random(volumes, chance)

asyncio.run(main(*sys.argv[1:]))
"""
KILLS = 4


async def events_told(bus: NatsBus) -> list[CloudEvent]:
    last = await bus.last_event_seq()
    events: list[CloudEvent] = []
    async with aclosing(bus.events("trivet.evt.>", since_seq=1)) as messages:
        async for message in messages:
            events.append(CloudEvent.model_validate_json(message.data))
            if message.seq == last:
                return events
    raise AssertionError("unreachable")


async def all_told(store: NatsStore) -> bool:
    async with aclosing(store.watch("")) as steps:
        async for step in steps:
            if isinstance(step, Synced):
                return True
            if step.value is not None and has_work(step.value):
                return False
    raise AssertionError("unreachable")


async def grown(bus: NatsBus, by: int) -> None:
    """Wait until the stream has that many events more."""
    goal = await bus.last_event_seq() + by
    async with asyncio.timeout(60):
        while await bus.last_event_seq() < goal:  # noqa: ASYNC110 - asks the server
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("seed", range(2))
async def test_killed_writers_and_servers_lose_and_double_nothing(
    tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    server = NatsServer(tmp_path)
    await server.start()
    bus = await server.bus("storage")
    child: subprocess.Popen[bytes] | None = None
    try:
        for life in range(KILLS):
            arguments = [server.url, str(server.seed_file("storage")), str(chance.random())[2:]]
            child = await asyncio.to_thread(
                subprocess.Popen, [sys.executable, "-W", "ignore", "-c", CHILD, *arguments]
            )
            await grown(bus, chance.randint(5, 60))
            if life % 2:
                await server.restart()
                await bus.link.up.wait()
                await grown(bus, chance.randint(5, 60))
            await asyncio.sleep(chance.random() * 0.05)
            child.kill()
            await asyncio.to_thread(child.wait)
        store = await NatsStore.open(bus, "storage")
        publisher = OutboxPublisher(bus, store, SystemClock(), Published(), clear_after_s=0.01)
        publishing = asyncio.create_task(publish(publisher, store))
        async with asyncio.timeout(30):
            while not await all_told(store):  # noqa: ASYNC110 - asks the server
                await asyncio.sleep(0.05)
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        events = await events_told(bus)
        assert len(events) >= 5 * KILLS
        assert check(events, await stored(store)) == []
    finally:
        if child is not None and child.poll() is None:
            child.kill()
        await bus.close()
        await server.stop()
