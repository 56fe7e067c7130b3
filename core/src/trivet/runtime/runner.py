"""From a command line to a running service: settings, logs, bus, store, signals.

The same for every service; what is a service's own is in its bootstrap.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import uvloop

from trivet.contracts.errors import Fatal, TrivetError, code
from trivet.runtime.call import Client
from trivet.runtime.clock import SystemClock
from trivet.runtime.garbage import started, wait_for_start
from trivet.runtime.inside import tell_when_asked
from trivet.runtime.logs import configure_logs
from trivet.runtime.nats_bus import NatsBus
from trivet.runtime.nats_store import NatsStore
from trivet.runtime.plugins import Plugins
from trivet.runtime.service import Runtime, Service
from trivet.runtime.settings import Settings, load_settings
from trivet.runtime.telemetry import configure_telemetry

log = logging.getLogger(__name__)

ALREADY_RUNNING = code("service.already_running", 500, "The service runs already")

Bootstrap = Callable[[Service], Awaitable[None]]


async def connect(service: str, settings: Settings) -> tuple[NatsBus, Runtime]:
    """The runtime of a service, connected as that service."""
    bus = await NatsBus.connect(
        settings.bus.urls,
        service=service,
        name=f"{service}@{settings.node}",
        seed_file=settings.bus.keys_dir / f"{service}.nk",
        ca_file=settings.bus.ca_file,
    )
    store = await NatsStore.open(bus, service)
    runtime = Runtime(
        service=service,
        node=settings.node,
        settings=settings,
        bus=bus,
        store=store,
        client=Client(bus, service, settings.node),
        clock=SystemClock(),
        plugins=Plugins.discover(service),
    )
    return bus, runtime


def lock_node(service: str, settings: Settings) -> int:
    """Make sure that this is the node's only process of the service, for as long as it lives.

    The lock is the kernel's, so it goes with the process, however that ends. Returns its file
    descriptor; raises `Fatal(ALREADY_RUNNING)`.
    """
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    path = settings.run_dir / f"{service}.lock"
    # Python makes it non-inheritable: no child can keep the lock for a dead service.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        detail = f"another trivet-{service} runs on {settings.node}"
        raise Fatal(ALREADY_RUNNING, detail, hint=f"it holds {path}") from error
    return descriptor


async def run(service: str, settings: Settings, bootstrap: Bootstrap) -> None:
    """Run a service until SIGTERM or SIGINT."""
    lock = lock_node(service, settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tell_when_asked()
    bus, runtime = await connect(service, settings)
    try:
        made = Service(runtime)
        await bootstrap(made)
        made.on_up(started)
        await made.run(stop)
    finally:
        await bus.close()
        os.close(lock)


def main(service: str, bootstrap: Bootstrap, *, netlink: bool = False) -> None:
    """The entry point of a service's process. Exits 1 with one line where it can't start.

    `netlink`: its drivers open netlink sockets in the event loop, which the fast loop can't.
    """
    wait_for_start()
    try:
        settings = load_settings()
        configure_logs(service, settings.log_level)
        configure_telemetry(service, settings.telemetry)
        new_loop = asyncio.new_event_loop if netlink else uvloop.new_event_loop
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(run(service, settings, bootstrap))
    except TrivetError as error:
        log.critical("%s", error)
        sys.exit(1)
