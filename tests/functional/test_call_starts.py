"""A call that died with its process ends when the process starts anew, not at its deadline."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint, GetRequest, Nothing
from trivet.contracts.errors import TIMEOUT, Retry
from trivet.contracts.model import Model
from trivet.contracts.network.endpoints.ports import CRUD as PORTS
from trivet.runtime import starts
from trivet.runtime.bus import Message
from trivet.runtime.call import Client
from trivet.testing.memory_bus import MemoryBroker, MemoryBus

DEADLINE_S = 600.0


def endpoint(op: str, *, changes: bool, per_node: bool = False) -> Endpoint[Nothing, Nothing]:
    return Endpoint(
        service="network",
        op=op,
        request=Nothing,
        response=Nothing,
        policy=INTERNAL,
        summary="",
        changes=changes,
        per_node=per_node,
        timeout_s=DEADLINE_S,
    )


ACT = endpoint("thing.act", changes=True)
LOOK = endpoint("thing.look", changes=False)
HERE = endpoint("thing.here", changes=True, per_node=True)


@dataclass
class World:
    """A caller, and the one it calls, which takes calls and answers none until it is `alive`."""

    bus: MemoryBus
    client: Client
    alive: bool = False
    taken: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def serve(self, subject: str) -> None:
        async def handle(message: Message) -> bytes:
            self.taken.put_nowait(message.subject)
            if not self.alive:
                await asyncio.Event().wait()
            return b"{}"

        await self.bus.serve(subject, handle, queue=None, bound=8)

    async def call(
        self, endpoint: Endpoint[Nothing, Nothing], node: str | None = None
    ) -> asyncio.Task[Model]:
        """The call, once it was taken."""
        task = asyncio.create_task(self.client.call(endpoint, Nothing(), node=node))
        await self.taken.get()
        return task


@pytest.fixture
async def world() -> AsyncIterator[World]:
    broker = MemoryBroker()
    bus, other = MemoryBus(broker), MemoryBus(broker)
    world = World(other, Client(bus, "compute"))
    for subject in (ACT.subject(), LOOK.subject(), HERE.subject("n1"), HERE.subject("n2")):
        await world.serve(subject)
    hearing = await world.client.hear_starts()
    yield world
    await hearing.stop()


async def test_what_changes_may_have_happened(world: World) -> None:
    act = await world.call(ACT)
    await starts.say(world.bus, "network", "n1")
    with pytest.raises(Retry) as caught:
        await asyncio.wait_for(act, 60)
    assert caught.value.code is TIMEOUT


async def test_what_only_reads_is_asked_again(world: World) -> None:
    look = await world.call(LOOK)
    world.alive = True
    await starts.say(world.bus, "network", "n1")
    assert await asyncio.wait_for(look, 60) == Nothing()


async def test_others_calls_go_on(world: World) -> None:
    there = await world.call(HERE, "n2")
    here = await world.call(HERE, "n1")
    await starts.say(world.bus, "storage", "n1")
    await starts.say(world.bus, "network", "n1")
    with pytest.raises(Retry):
        await asyncio.wait_for(here, 60)
    assert not there.done()
    there.cancel()


def test_a_get_waits_as_long_as_it_asks_to() -> None:
    asked = GetRequest(project="p", name="a")
    assert PORTS.get.deadline_s(asked) == PORTS.get.timeout_s
    longer = asked.model_copy(update={"settle_s": 60.0})
    assert PORTS.get.deadline_s(longer) == PORTS.get.timeout_s + 60
