"""The store in memory and on a real server, through one suite; faults and kills beside it."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from trivet.contracts.errors import CONFLICT, TIMEOUT, UNAVAILABLE, Refused, Retry
from trivet.runtime import nats_store
from trivet.runtime.nats_config import ADMIN, stream_of
from trivet.runtime.store import Change, Synced
from trivet.testing.bus_world import BusWorld, MemoryWorld, NatsWorld
from trivet.testing.memory_store import Fault, MemoryStore
from trivet.testing.nats import NatsServer
from trivet.testing.suites.store import StoreSuite


class TestMemoryStore(StoreSuite):
    @pytest.fixture
    async def world(self) -> AsyncIterator[BusWorld]:
        made = MemoryWorld()
        yield made
        await made.close()


class TestNatsStore(StoreSuite):
    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[BusWorld]:
        server = NatsServer(tmp_path)
        await server.start()
        made = NatsWorld(server)
        yield made
        await made.close()


@pytest.mark.parametrize(
    ("fault", "code", "there"),
    [
        (Fault.REFUSED_CONNECTION, UNAVAILABLE, False),
        (Fault.LOST_BEFORE, TIMEOUT, False),
        (Fault.LOST_AFTER, TIMEOUT, True),
    ],
)
async def test_a_fault_strikes_once_before_or_after_the_write(
    fault: Fault, code: object, there: bool
) -> None:
    store = MemoryStore()
    store.fail(fault, when=lambda key: key == "k.a")
    await store.create("k.b", b"")
    with pytest.raises(Retry) as error:
        await store.create("k.a", b"1")
    assert error.value.code is code
    assert (await store.get("k.a") is not None) is there
    if not there:
        await store.create("k.a", b"2")


@pytest.mark.parametrize("seed", range(3))
async def test_a_killed_server_keeps_every_acknowledged_write(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    server = NatsServer(tmp_path)
    await server.start()
    world = NatsWorld(server)
    store = await world.store("compute")
    counts = {f"k.{n}": (0, 0) for n in range(8)}
    stop = False

    async def count_up(key: str) -> None:
        """Each acknowledged step is noted; after doubt, the store tells where it stands."""
        while not stop:
            value, revision = counts[key]
            try:
                data = b"%d" % (value + 1)
                if revision:
                    counts[key] = (value + 1, await store.update(key, data, revision))
                else:
                    counts[key] = (value + 1, await store.create(key, data))
            except (Retry, Refused) as error:
                if isinstance(error, Refused) and error.code is not CONFLICT:
                    raise
                counts[key] = await look(key, value)

    async def look(key: str, value: int) -> tuple[int, int]:
        while True:
            try:
                entry = await store.get(key)
            except Retry:
                await asyncio.sleep(0.02)
                continue
            found = (int(entry.value), entry.revision) if entry else (0, 0)
            assert found[0] in (value, value + 1)
            return found

    counting = [asyncio.create_task(count_up(key)) for key in counts]
    for _ in range(3):
        goal = sum(value for value, _ in counts.values()) + chance.randint(50, 400)
        while sum(value for value, _ in counts.values()) < goal:
            await asyncio.sleep(0.005)
            for done in counting:
                if done.done():
                    done.result()
        await world.cut()
        await world.mend()
    stop = True
    await asyncio.gather(*counting)
    for key, (value, revision) in counts.items():
        entry = await store.get(key)
        assert entry is not None
        assert (int(entry.value), entry.revision) == (value, revision)
    await world.close()


async def test_what_nobody_answers_is_asked_again_and_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server hangs: every copy of each question gets to it when it goes on."""
    monkeypatch.setattr(nats_store, "ANSWER_S", 0.1)
    server = NatsServer(tmp_path)
    await server.start()
    world = NatsWorld(server)
    store = await world.store("compute")
    first = await store.create("k.a", b"0")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        writes = [
            asyncio.create_task(store.update("k.a", b"1", first)),
            asyncio.create_task(store.create("k.b", b"1")),
        ]
        read = asyncio.create_task(store.get("k.a"))
        await asyncio.wait([*writes, read], timeout=0.5)
        assert not any(task.done() for task in (*writes, read))
    finally:
        os.kill(server.pid, signal.SIGCONT)
    updated, created = await asyncio.gather(*writes)
    assert await read is not None
    for key, revision in (("k.a", updated), ("k.b", created)):
        entry = await store.get(key)
        assert entry is not None
        assert (entry.value, entry.revision) == (b"1", revision)
    assert sorted((updated, created)) == [first + 1, first + 2]
    assert await store.create("k.c", b"") == first + 3  # no copy came after
    await world.close()


async def test_a_killed_server_brings_no_deleted_key_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even when the time of the deletion's marker was over, and its last value still lies
    in the server's files."""
    monkeypatch.setattr(nats_store, "MARKER_TTL_S", 1)
    server = NatsServer(tmp_path)
    await server.start()
    world = NatsWorld(server)
    store = await world.store("compute")
    for n in range(3):
        revision = await store.create(f"claim.{n}", b"old")
        await store.delete(f"claim.{n}", await store.update(f"claim.{n}", b"new", revision))
    await store.create("other", b"stays")
    admin = await server.link(ADMIN)

    async def messages() -> int:
        info = await admin.api(f"STREAM.INFO.{stream_of('compute')}")
        return int(info["state"]["messages"])

    async with asyncio.timeout(60):
        while True:
            if await messages() == 1:
                break
            await asyncio.sleep(0.1)
    await admin.close()
    await world.cut()
    await world.mend()
    assert [await store.get(f"claim.{n}") for n in range(3)] == [None] * 3
    async with aclosing(store.watch("")) as steps:
        told = [step async for step in _until_synced(steps)]
    assert [change.key for change in told] == ["other"]
    assert await store.create("claim.0", b"again") > 0
    await world.close()


async def _until_synced(steps: AsyncIterator[Change | Synced]) -> AsyncIterator[Change]:
    async for step in steps:
        if isinstance(step, Synced):
            return
        yield step
