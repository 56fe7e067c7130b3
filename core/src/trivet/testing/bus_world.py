"""A bus with its stores, as a test sees it: in memory or with a real server behind it.

The suites of the bus and of the store are written against `BusWorld` and run on both, so that
what is tested in memory elsewhere holds on the real thing.
"""

from __future__ import annotations

from typing import Protocol

from trivet.runtime.bus import Bus
from trivet.runtime.nats_bus import NatsBus
from trivet.runtime.nats_config import ADMIN, stream_of
from trivet.runtime.nats_store import NatsStore
from trivet.runtime.store import Store
from trivet.testing.memory_bus import MemoryBroker, MemoryBus
from trivet.testing.memory_store import MemoryStore
from trivet.testing.nats import NatsServer


class BusWorld(Protocol):
    """What a test can ask for, and do to it."""

    async def bus(self, service: str) -> Bus:
        """A new connection of `service`."""
        ...

    async def store(self, service: str) -> Store:
        """The bucket of `service`, over a new connection."""
        ...

    async def cut(self) -> None:
        """Take the server away from everybody."""
        ...

    async def mend(self) -> None:
        """Give it back, with all that was acknowledged."""
        ...

    async def vanish(self, service: str, key: str) -> None:
        """Remove a key without a trace (as when its deletion's marker has timed out)."""
        ...

    async def close(self) -> None:
        """Close all connections, and the server."""
        ...


class MemoryWorld:
    """The twins, on one broker."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self._buses: list[MemoryBus] = []

    async def bus(self, service: str) -> MemoryBus:
        """A new connection of `service`."""
        bus = MemoryBus(self.broker, service)
        self._buses.append(bus)
        return bus

    async def store(self, service: str) -> MemoryStore:
        """The bucket of `service`, over a new connection."""
        return MemoryStore(await self.bus(service), service)

    async def cut(self) -> None:
        """Cut every connection."""
        for bus in self._buses:
            await bus.drop()

    async def mend(self) -> None:
        """Mend every connection."""
        for bus in self._buses:
            await bus.restore()

    async def vanish(self, service: str, key: str) -> None:
        """Forget a key."""
        del self.broker.bucket(service).keys[key]

    async def close(self) -> None:
        """Close all connections."""
        for bus in self._buses:
            await bus.close()


class NatsWorld:
    """A real server."""

    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self._buses: list[NatsBus] = []

    async def bus(self, service: str) -> NatsBus:
        """A new connection of `service`."""
        bus = await self.server.bus(service)
        self._buses.append(bus)
        return bus

    async def store(self, service: str) -> NatsStore:
        """The bucket of `service`, over a new connection."""
        return await NatsStore.open(await self.bus(service), service)

    async def cut(self) -> None:
        """Kill the server."""
        await self.server.kill()
        for bus in self._buses:
            await bus.link.down.wait()

    async def mend(self) -> None:
        """Start it again with the same data."""
        await self.server.start()
        for bus in self._buses:
            await bus.link.up.wait()

    async def vanish(self, service: str, key: str) -> None:
        """Purge a key's messages, markers and all."""
        admin = await self.server.link(ADMIN)
        await admin.api(f"STREAM.PURGE.{stream_of(service)}", {"filter": f"$KV.{service}.{key}"})
        await admin.close()

    async def close(self) -> None:
        """Close all connections, and the server."""
        for bus in self._buses:
            await bus.close()
        await self.server.stop()
