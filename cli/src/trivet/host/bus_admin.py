"""What the node itself says on the bus, as its administrator: provision it, and drain the node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from trivet.contracts.compute.endpoints.node_drain import ENDPOINT, DrainRequest, DrainResponse
from trivet.contracts.errors import TIMEOUT, Retry
from trivet.runtime.call import Client
from trivet.runtime.nats_bus import NatsBus
from trivet.runtime.nats_link import NOT_FOUND, ApiError, translate
from trivet.runtime.nats_provision import provision as provision_link
from trivet.runtime.nats_provision import stream_configs
from trivet.runtime.settings import Settings

IDENTITY = "admin"
DRAIN_GRACE_S = 30
PROVISION_S = 60.0


async def provision(settings: Settings, timeout_s: float = PROVISION_S) -> None:
    """Make the streams and buckets that are missing. Raises `Retry` where the bus, or most of
    its servers, are not there within that time."""
    try:
        async with asyncio.timeout(timeout_s), _connected(settings) as bus:
            await provision_link(bus.link, settings.bus.replicas, timeout_s=timeout_s)
    except TimeoutError as error:
        raise Retry(TIMEOUT, f"not within {timeout_s:g} s") from error


async def drain(settings: Settings, grace_s: int) -> DrainResponse:
    """Have this node's compute agent stop all guests; raises what it raises."""
    async with _connected(settings) as bus:
        return await Client(bus, IDENTITY).call(
            ENDPOINT, DrainRequest(grace_s=grace_s), node=settings.node, timeout_s=grace_s + 60.0
        )


async def streams(settings: Settings) -> dict[str, dict[str, Any] | None]:
    """What the server says of each stream and bucket; None: it is not there."""
    names = [config["name"] for config in stream_configs(settings.bus.replicas)]
    found: dict[str, dict[str, Any] | None] = {}
    async with _connected(settings) as bus:
        for name in names:
            try:
                found[name] = await bus.link.api(f"STREAM.INFO.{name}")
            except ApiError as error:
                if error.status != NOT_FOUND:
                    raise translate(error, f"stream {name}") from error
                found[name] = None
    return found


@asynccontextmanager
async def _connected(settings: Settings) -> AsyncIterator[NatsBus]:
    bus = await NatsBus.connect(
        settings.bus.urls,
        service=IDENTITY,
        name=f"{IDENTITY}@{settings.node}",
        seed_file=settings.bus.keys_dir / f"{IDENTITY}.nk",
        ca_file=settings.bus.ca_file,
    )
    try:
        yield bus
    finally:
        await bus.close()
