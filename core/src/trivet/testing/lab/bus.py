"""What an instance has on its bus: live keys of every bucket, and consumers of every stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from trivet.contracts.event import STREAM
from trivet.runtime.nats_bus import NatsBus
from trivet.runtime.nats_config import ADMIN, BUCKET_OWNERS, stream_of
from trivet.runtime.nats_store import NatsStore
from trivet.runtime.settings import Settings
from trivet.runtime.store import Synced
from trivet.testing.lab.inventory import Inventory

GROWS = ("audit.", "alarm.")
"""Keys that are there to become more: records of what was."""


async def bus_inventory(settings: Settings) -> Inventory:
    """The keys and the consumers, this look's own not counted. Needs the administrator's key."""
    async with connected(settings) as bus:
        keys = [f"{b} {key}" for b in BUCKET_OWNERS for key in await keys_of(bus, b)]
        followers = [
            f"{stream} {config['filter_subject']}"
            for stream in (STREAM, *(stream_of(b) for b in BUCKET_OWNERS))
            for config in await consumers(bus, stream)
        ]
    return Inventory.of(keys=keys, consumers=followers)


async def keys_of(bus: NatsBus, bucket: str) -> list[str]:
    """The live keys of a bucket."""
    store = await NatsStore.open(bus, bucket)
    found: list[str] = []
    async with aclosing(store.watch("")) as steps:
        async for step in steps:
            if isinstance(step, Synced):
                break
            if step.value is not None and not step.key.startswith(GROWS):
                found.append(step.key)
    return found


async def consumers(bus: NatsBus, stream: str) -> list[dict[str, Any]]:
    """The configurations of a stream's consumers, but those of looks like this one."""
    found: list[dict[str, Any]] = []
    while True:
        page = await bus.link.api(f"CONSUMER.LIST.{stream}", {"offset": len(found)})
        found += [c["config"] for c in page["consumers"]]
        if len(found) >= page["total"] or not page["consumers"]:
            return [c for c in found if not c["deliver_subject"].startswith(f"_INBOX.{ADMIN}.")]


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[NatsBus]:
    """A connection as the administrator."""
    bus = await NatsBus.connect(
        settings.bus.urls,
        service=ADMIN,
        name=f"lab@{settings.node}",
        seed_file=settings.bus.keys_dir / f"{ADMIN}.nk",
        ca_file=settings.bus.ca_file,
    )
    try:
        yield bus
    finally:
        await bus.close()
