"""The gateway's process: `trivet-gateway`. It needs the bus, its bucket of kept
answers, and a socket."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import uvloop

from trivet.contracts.errors import TrivetError
from trivet.gateway.app import SERVICE, Gateway
from trivet.gateway.audit_spool import AuditSpool
from trivet.gateway.limits import Limits
from trivet.gateway.server import listening_socket, serve
from trivet.runtime.clock import SystemClock
from trivet.runtime.garbage import started, wait_for_start
from trivet.runtime.inside import tell_when_asked
from trivet.runtime.logs import configure_logs
from trivet.runtime.nats_bus import NatsBus
from trivet.runtime.nats_config import ANSWERS_BUCKET
from trivet.runtime.nats_store import NatsStore
from trivet.runtime.settings import Settings, load_settings
from trivet.runtime.streams import Dialer
from trivet.runtime.telemetry import configure_telemetry

log = logging.getLogger(__name__)


async def run(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tell_when_asked()
    listener = listening_socket(settings.gateway)
    bus = await NatsBus.connect(
        settings.bus.urls,
        service=SERVICE,
        name=f"{SERVICE}@{settings.node}",
        seed_file=settings.bus.keys_dir / f"{SERVICE}.nk",
        ca_file=settings.bus.ca_file,
    )
    try:
        store = await NatsStore.open(bus, ANSWERS_BUCKET)
        limits = Limits.of(settings.gateway)
        holder = f"{settings.node}:{settings.gateway.port}"
        dialer = Dialer(settings.node, settings.gateway.ca_file)
        spool = AuditSpool(settings.state_dir / SERVICE / f"audit-{settings.gateway.port}.jsonl")
        clock, node = SystemClock(), settings.node
        gateway = Gateway(bus, store, clock, limits, holder, dialer, spool, node)
        started()
        await serve(gateway, settings.gateway, listener, stop)
    finally:
        await bus.close()


def main() -> None:
    """The entry point. Exits 1 with one line where it can't start."""
    wait_for_start()
    try:
        settings = load_settings()
        configure_logs(SERVICE, settings.log_level)
        configure_telemetry(SERVICE, settings.telemetry)
        uvloop.run(run(settings))
    except TrivetError as error:
        log.critical("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
