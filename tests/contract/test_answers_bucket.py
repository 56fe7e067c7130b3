"""The bucket of kept answers on a real server: who may do what with it, and for how long."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from trivet.contracts.errors import CONFLICT, Fatal, Refused, Retry
from trivet.runtime.nats_config import ADMIN, ANSWERS_BUCKET, stream_of
from trivet.runtime.nats_store import NatsStore
from trivet.testing.nats import NatsServer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    made = NatsServer(tmp_path)
    await made.start()
    yield made
    await made.stop()


async def test_the_gateway_writes_by_compare_and_swap_and_nothing_else(server: NatsServer) -> None:
    bus = await server.bus("gateway")
    store = await NatsStore.open(bus, ANSWERS_BUCKET)
    revision = await store.create("once.ab", b"1")
    with pytest.raises(Refused) as refused:
        await store.create("once.ab", b"2")
    assert refused.value.code is CONFLICT
    assert await store.update("once.ab", b"2", revision) > revision
    found = await store.get("once.ab")
    assert found is not None
    assert found.value == b"2"
    for key in ("other.ab", "once.a.b"):
        with pytest.raises(Fatal):
            await store.create(key, b"x")
    other = await server.bus("compute")
    with pytest.raises((Fatal, Retry)):
        await NatsStore(other.link, ANSWERS_BUCKET).get("once.ab")
    await other.close()
    await bus.close()


async def test_a_key_can_be_used_again_once_its_time_is_over(server: NatsServer) -> None:
    admin = await server.link(ADMIN)
    found = await admin.api(f"STREAM.INFO.{stream_of(ANSWERS_BUCKET)}")
    short = {**found["config"], "max_age": 300_000_000, "duplicate_window": 100_000_000}
    await admin.api(f"STREAM.UPDATE.{stream_of(ANSWERS_BUCKET)}", short)
    bus = await server.bus("gateway")
    store = await NatsStore.open(bus, ANSWERS_BUCKET)
    await store.create("once.ab", b"1")
    async with asyncio.timeout(60):
        while await store.get("once.ab") is not None:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.05)
    assert await store.create("once.ab", b"2") > 0
    await bus.close()
    await admin.close()
