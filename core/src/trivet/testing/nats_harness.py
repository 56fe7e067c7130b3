"""Whole services in one process on a real NATS server: only the drivers are fakes.

Each service has its own connection, with its own key and the permissions that ship. What they
hold can be counted from inside (tasks, descriptors), which no real node allows.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trivet.contracts.endpoint import SERVICES
from trivet.runtime.bus import Bus
from trivet.runtime.call import Client
from trivet.runtime.inside import tasks
from trivet.runtime.nats_store import NatsStore
from trivet.runtime.store import Store, Synced
from trivet.testing.harness import Harness
from trivet.testing.lab.inventory import Inventory
from trivet.testing.nats import NatsServer

CALLER = "gateway"
GROWS = ("audit.", "alarm.")


class NatsHarness(Harness):
    """Services on `server`, which runs; calls are made as the gateway would."""

    def __init__(self, server: NatsServer, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self._server = server
        self._connections: list[Bus] = []

    async def __aenter__(self) -> Self:
        self._bus = await self._server.bus(CALLER)
        self.client = Client(self._bus, CALLER)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await super().__aexit__(kind, error, trace)
        for bus in self._connections:
            await bus.close()

    async def _connect(self, service: str) -> tuple[Bus, Store]:
        bus = await self._server.bus(service)
        self._connections.append(bus)
        return bus, await NatsStore.open(bus, service)

    async def inventory(self) -> Inventory:
        """The live keys of all buckets, and what this process has at work and open."""
        keys = [
            f"{name} {key}" for name in SERVICES if name != CALLER for key in await self._keys(name)
        ]
        opened = len(os.listdir("/proc/self/fd"))
        counted = {"tasks": tasks(), "descriptors": Counter({"open": opened})}
        return Inventory.of(keys=keys) | Inventory(counted)

    async def _keys(self, service: str) -> list[str]:
        store = self.service(service).runtime.store
        found: list[str] = []
        async with aclosing(store.watch("")) as steps:
            async for step in steps:
                if isinstance(step, Synced):
                    return found
                if step.value is not None and not step.key.startswith(GROWS):
                    found.append(step.key)
        return found
