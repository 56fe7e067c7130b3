"""The skeleton of a service: endpoints for the cluster, controllers by lease, a node's agent.

A service's bootstrap says what belongs to it (`collection`, `handle`, `agent`, `controller`,
`on_event`); `run` then brings it up in the order that makes it safe: copies are filled before
anything acts on them, endpoints answer before agents call each other, and on the way down the
endpoints stop first. Wiring happens there and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trivet.contracts.driver import DriverContext
from trivet.contracts.endpoint import Endpoint, Nothing
from trivet.contracts.errors import Retry
from trivet.contracts.event import CloudEvent
from trivet.contracts.resource import Kind, ResourceT
from trivet.contracts.service_metrics import MetricsText, metrics_endpoint
from trivet.contracts.service_status import status_endpoint
from trivet.runtime import starts
from trivet.runtime.assignments import Assigned, Assignments
from trivet.runtime.bus import Bus, Subscription
from trivet.runtime.call import Call, Client, EndpointHandler, answer
from trivet.runtime.clock import Clock
from trivet.runtime.collection import Collection
from trivet.runtime.feed import Feed
from trivet.runtime.lease import Lease
from trivet.runtime.metrics import Reading, State, resources
from trivet.runtime.outbox import OutboxPublisher
from trivet.runtime.plugins import Plugins
from trivet.runtime.record import Published
from trivet.runtime.service_status import LEAD, Untold, status_handler
from trivet.runtime.settings import Settings
from trivet.runtime.store import Store

log = logging.getLogger(__name__)

HANDLERS_BOUND = 64
SYNC_TIMEOUT_S = 60.0
RESTART_FIRST_S = 0.5
RESTART_LAST_S = 15.0

Duty = Callable[[], Awaitable[None]]
EventCallback = Callable[[CloudEvent], Awaitable[None]]


@dataclass(frozen=True)
class Runtime:
    """What every part of a service is given."""

    service: str
    node: str
    settings: Settings
    bus: Bus
    store: Store
    client: Client
    clock: Clock
    plugins: Plugins

    def driver_context(self, driver: str) -> DriverContext:
        """The place in which the driver of that name works; its folders are made."""
        state = self.settings.state_dir / self.service / driver
        run = self.settings.run_dir / self.service / driver
        state.mkdir(parents=True, exist_ok=True)
        run.mkdir(parents=True, exist_ok=True)
        return DriverContext(self.node, state, run, self.settings.prefix)

    async def driver(self, hook: str, wanted: str) -> Any:
        """The opened driver at `hook` that settings name, or the best one."""
        configs = self.settings.plugins
        return await self.plugins.choose(hook, wanted, self.driver_context, configs)


class Service:
    """A service, as its bootstrap puts it together."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.published = Published()
        self.up = asyncio.Event()
        self.feed = Feed(runtime.store)
        self._outbox = OutboxPublisher(runtime.bus, runtime.store, runtime.clock, self.published)
        self.feed.add("", self._outbox.take)
        self.assignments = Assignments(runtime.store)
        self.feed.add(self.assignments.prefix, self.assignments.take)
        self.handled: set[str] = set()
        self._collections: dict[str, Collection[Any]] = {}
        self._assigned: Assigned | None = None
        self._handlers: list[tuple[Endpoint[Any, Any], EndpointHandler]] = []
        self._agents: list[tuple[str, Duty]] = []
        self._controllers: list[tuple[str, Duty]] = []
        self._event_callbacks: list[tuple[str, EventCallback]] = []
        self._closers: list[Duty] = []
        self._when_up: list[Callable[[], None]] = []
        self._untold = Untold(runtime.clock)
        self._leads = False
        self.state = State()
        self.state.add(self._readings)

    def collection(self, kind: Kind[ResourceT]) -> Collection[ResourceT]:
        """The resources of a kind; one collection a kind."""
        if kind.name not in self._collections:
            made = Collection(kind, self.runtime.store, self.runtime.clock, self.published)
            self.feed.add(made.prefix, made.take)
            self._collections[kind.name] = made
        return self._collections[kind.name]

    def assigned(self) -> Assigned:
        """What is assigned to this node."""
        if self._assigned is None:
            self._assigned = Assigned(self.runtime.node)
            self.feed.add(self._assigned.prefix, self._assigned.take)
        return self._assigned

    def handle(self, endpoint: Endpoint[Any, Any], handler: EndpointHandler) -> None:
        """Answer calls of `endpoint`: for the cluster, or for this node."""
        if endpoint.op in self.handled:
            raise ValueError(f"{endpoint.op} is handled twice")
        self.handled.add(endpoint.op)
        self._handlers.append((endpoint, handler))

    def agent(self, name: str, run: Duty) -> None:
        """A duty of every instance, begun anew when it fails."""
        self._agents.append((name, run))

    def controller(self, name: str, run: Duty) -> None:
        """A duty of the instance that leads; cancelled when it leads no more."""
        self._controllers.append((name, run))

    def on_event(self, subject: str, callback: EventCallback) -> None:
        """Hear events from now on (`trivet.evt.storage.volume.>`): hints to look, no more."""
        self._event_callbacks.append((subject, callback))

    def on_up(self, callback: Callable[[], None]) -> None:
        """Call `callback` once copies are filled and calls are answered."""
        self._when_up.append(callback)

    def on_close(self, close: Duty) -> None:
        """Call `close` at the end, last one first."""
        self._closers.append(close)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, or until a part fails that can't be begun anew."""
        tasks: list[asyncio.Task[None]] = []
        subscriptions: list[Subscription] = []
        try:
            if self._collections or self._assigned:
                self._tell_status()
                tasks.append(asyncio.create_task(self._forever("feed", self.feed.run)))
                async with asyncio.timeout(SYNC_TIMEOUT_S):
                    await self.feed.synced()
            self.handle(metrics_endpoint(self.runtime.service), self._metrics)
            subscriptions.append(await self.runtime.client.hear_starts())
            await starts.say(self.runtime.bus, self.runtime.service, self.runtime.node)
            for endpoint, handler in self._handlers:
                subscriptions += await self._serve(endpoint, handler)
            for subject, callback in self._event_callbacks:
                hear = self._hear(subject, callback)
                tasks.append(asyncio.create_task(self._forever(f"events {subject}", hear)))
            tasks.extend(asyncio.create_task(self._forever(n, run)) for n, run in self._agents)
            if self._collections:
                tasks.append(asyncio.create_task(self._forever("lead", self._lead)))
            self.up.set()
            for tell in self._when_up:
                tell()
            log.info("%s on %s is up", self.runtime.service, self.runtime.node)
            await stop.wait()
        finally:
            await self._close(tasks, subscriptions)

    async def _close(
        self, tasks: list[asyncio.Task[None]], subscriptions: list[Subscription]
    ) -> None:
        for subscription in subscriptions:
            await subscription.stop()
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for close in reversed(self._closers):
            await close()

    def _tell_status(self) -> None:
        """Answer `service.status`, as every service with a bucket does."""
        runtime = self.runtime
        self.feed.add("", self._untold.take)
        handler = status_handler(runtime.node, runtime.store, self._untold, runtime.clock)
        self.handle(status_endpoint(runtime.service), handler)

    def _readings(self) -> Iterable[Reading]:
        """What every service tells of itself."""
        labels = {"service": self.runtime.service}
        untold, oldest_s = self._untold.now()
        yield Reading("trivet_leads", "Whether this instance leads", self._leads, labels)
        yield Reading("trivet_outbox_records", "Records with events to tell", untold, labels)
        yield Reading("trivet_outbox_oldest_seconds", "Age of the oldest of them", oldest_s, labels)
        yield from resources(self._collections.values())

    async def _metrics(self, request: Nothing, call: Call) -> MetricsText:
        return MetricsText(text=self.state.text())

    async def _serve(
        self, endpoint: Endpoint[Any, Any], handler: EndpointHandler
    ) -> list[Subscription]:
        """Answer on the subject of all instances and on this one's own, or on the node's."""
        node, bus = self.runtime.node, self.runtime.bus
        subjects = [endpoint.subject(node if endpoint.per_node else None)]
        if not endpoint.per_node:
            subjects.append(endpoint.subject_at(node))
        answers, queue = answer(endpoint, handler), self.runtime.service
        return [
            await bus.serve(subject, answers, queue=queue, bound=HANDLERS_BOUND)
            for subject in subjects
        ]

    def _hear(self, subject: str, callback: EventCallback) -> Duty:
        async def hear() -> None:
            async for message in self.runtime.bus.events(subject, since_seq=None):
                try:
                    event = CloudEvent.model_validate_json(message.data)
                except ValidationError as error:
                    log.warning("event %d can't be read: %s", message.seq, error)
                    continue
                await callback(event)

        return hear

    async def _lead(self) -> None:
        runtime = self.runtime
        lease = Lease(runtime.store, LEAD, runtime.node, runtime.clock, alone=True)
        await lease.hold(self._controllers_work)

    async def _controllers_work(self) -> None:
        log.info("%s on %s leads", self.runtime.service, self.runtime.node)
        self._leads = True
        try:
            async with asyncio.TaskGroup() as group:
                for name, run in [("outbox", self._outbox.run), *self._controllers]:
                    group.create_task(self._forever(name, run))
        finally:
            self._leads = False

    async def _forever(self, name: str, run: Duty) -> None:
        """Run a duty; when it fails or ends, begin it anew after a growing while."""
        delay = RESTART_FIRST_S
        while True:
            began = self.runtime.clock.monotonic()
            try:
                await run()
            except Exception as error:  # noqa: BLE001 - told, and the duty goes on
                _note_end(f"{self.runtime.service}: {name}", error)
            if self.runtime.clock.monotonic() - began > RESTART_LAST_S:
                delay = RESTART_FIRST_S
            await self.runtime.clock.sleep(delay)
            delay = min(delay * 2, RESTART_LAST_S)


def _note_end(who: str, error: Exception) -> None:
    """Log that a duty ended: with where only if that is not said by what."""
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        _note_end(who, error.exceptions[0])
    elif isinstance(error, Retry):
        log.info("%s begins anew: %s", who, error)
    else:
        log.error("%s failed: %s", who, error, exc_info=error)
