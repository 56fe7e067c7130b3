"""Whole services in one process: the in-memory bus, their own stores, and fake drivers.

A service started here is the real one, wired by its own bootstrap; only the bus, the store and
the drivers are twins. `crash` ends one as kill -9 would (nothing is let finish), `start` brings
it back on the same store, which is how tests cut work in the middle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model
from trivet.contracts.security.endpoints.quota_claim import ENDPOINT as CLAIM
from trivet.contracts.security.endpoints.quota_claim import ClaimRequest, ClaimResponse
from trivet.runtime.bus import Bus, Subscription
from trivet.runtime.call import Call, Client, EndpointHandler, answer
from trivet.runtime.clock import Clock, SystemClock
from trivet.runtime.plugins import Plugins
from trivet.runtime.service import Runtime, Service
from trivet.runtime.settings import Settings
from trivet.runtime.store import Store
from trivet.testing.memory_bus import MemoryBroker, MemoryBus
from trivet.testing.memory_store import MemoryStore

ResponseT = TypeVar("ResponseT", bound=Model)
Bootstrap = Callable[[Service], Awaitable[None]]

UP_TIMEOUT_S = 60.0


@dataclass
class Running:
    """A service that was started."""

    service: Service
    stop: asyncio.Event
    task: asyncio.Task[None]


class Harness:
    """Services on one memory broker. `folder` is where drivers may keep things; `configs` are
    their configurations, by driver; `clock` is everybody's."""

    def __init__(
        self,
        folder: Path,
        *,
        plugins: tuple[Any, ...] = (),
        configs: dict[str, Any] | None = None,
        clock: Clock | None = None,
        **settings: Any,
    ) -> None:
        self.broker = MemoryBroker()
        self.clock = clock or SystemClock()
        self.folder = folder
        self.settings = Settings.model_validate(
            {
                "node": "n1",
                "state_dir": folder / "state",
                "run_dir": folder / "run",
                "plugins": configs or {},
                **settings,
            }
        )
        self._plugins = plugins
        self._running: dict[tuple[str, str], Running] = {}
        self._bus: Bus = MemoryBus(self.broker)
        self._unlimited: Subscription | None = None
        self.client = Client(self._bus, "test")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for name, node in list(self._running):
            await self.stop(name, node)
        await self._bus.close()

    def store(self, service: str) -> MemoryStore:
        """A service's bucket, to look into or to make fail."""
        return MemoryStore(self.broker, service)

    async def _connect(self, service: str) -> tuple[Bus, Store]:
        """A connection of a service that starts, and its bucket."""
        bus = MemoryBus(self.broker)
        return bus, MemoryStore(bus, service)

    async def start(self, name: str, bootstrap: Bootstrap, node: str = "n1") -> Service:
        """Start a service on a node, and wait until it answers."""
        settings = self.settings.model_copy(update={"node": node})
        plugins = Plugins()
        for number, plugin in enumerate(self._plugins):
            plugins.register(plugin, f"test-{number}")
        bus, store = await self._connect(name)
        runtime = Runtime(
            service=name,
            node=node,
            settings=settings,
            bus=bus,
            store=store,
            client=Client(bus, name, node),
            clock=self.clock,
            plugins=plugins,
        )
        service = Service(runtime)
        await self._quotas_answered(name)
        await bootstrap(service)
        stop = asyncio.Event()
        task = asyncio.create_task(service.run(stop))
        self._running[name, node] = Running(service, stop, task)
        up = asyncio.create_task(service.up.wait())
        await asyncio.wait({up, task}, timeout=UP_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if not service.up.is_set():
            up.cancel()
            await task
            raise RuntimeError(f"{name} did not come up")
        return service

    async def _quotas_answered(self, starting: str) -> None:
        """While there is no security service, nobody's quotas are limited."""
        if starting == "security" and self._unlimited is not None:
            await self._unlimited.stop()
            self._unlimited = None
        elif (
            starting != "security"
            and self._unlimited is None
            and not any(name == "security" for name, _ in self._running)
        ):

            async def unlimited(request: ClaimRequest, call: Call) -> ClaimResponse:
                return ClaimResponse()

            self._unlimited = await self._bus.serve(
                CLAIM.subject(), answer(CLAIM, unlimited), queue="security", bound=64
            )

    def service(self, name: str, node: str = "n1") -> Service:
        """A service that was started, to look into or to make its store fail."""
        return self._running[name, node].service

    async def stop(self, name: str, node: str = "n1") -> None:
        """Stop a service in good order."""
        running = self._running.pop((name, node))
        running.stop.set()
        await running.task

    async def crash(self, name: str, node: str = "n1") -> None:
        """End a service at once: what it was doing is cut where it stands."""
        running = self._running.pop((name, node))
        running.task.cancel()
        await asyncio.gather(running.task, return_exceptions=True)

    async def fake(
        self, endpoint: Endpoint[Any, Any], handler: EndpointHandler, node: str | None = None
    ) -> None:
        """Answer an endpoint of a service that is not there."""
        subject = endpoint.subject(node)
        await self._bus.serve(subject, answer(endpoint, handler), queue=None, bound=64)

    async def call(
        self, endpoint: Endpoint[Any, ResponseT], request: Model, node: str | None = None
    ) -> ResponseT:
        """Call an endpoint as a service would."""
        return await self.client.call(endpoint, request, node=node)
