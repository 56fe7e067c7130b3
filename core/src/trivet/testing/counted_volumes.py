"""A writer whose events tell by themselves whether one was lost or doubled.

It creates, edits and removes volumes through a real `Collection`. Every edit raises the
generation and causes one event that names it, so a volume's events must be `created`, then
`edited` 2, 3, ... up to the generation that the store has, then perhaps `deleted`: each once,
in that order. `check` compares the stream with the store, which needs no log of what a writer
believes to have done; so writers may be killed anywhere, also as processes of their own.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

from trivet.contracts.errors import Refused, Retry
from trivet.contracts.event import CloudEvent
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta
from trivet.contracts.storage.volume import VOLUME, Volume, VolumeSpec, VolumeStatus
from trivet.runtime.clock import SystemClock, new_id
from trivet.runtime.collection import Collection
from trivet.runtime.feed import Feed
from trivet.runtime.outbox import OutboxPublisher
from trivet.runtime.record import Published
from trivet.runtime.store import Store, Synced

NAMES = 4


def volumes_in(store: Store, published: Published | None = None) -> Collection[Volume]:
    """A collection on `store`, without a feed: it reads what it needs."""
    return Collection(VOLUME, store, SystemClock(), published)


def fresh_volume(name: str) -> Volume:
    """A volume as it is before it is stored."""
    meta = Meta(
        id=ResourceId(new_id("volume")), name=name, project="lab", created_at=datetime.now(UTC)
    )
    return Volume(meta=meta, spec=VolumeSpec(size_gib=1), status=VolumeStatus())


async def write_at_random(volumes: Collection[Volume], chance: random.Random) -> None:
    """One write; what the store can't tell or refuses is left at that."""
    name = f"v{chance.randrange(NAMES)}"
    try:
        now = await volumes.fresh(VOLUME.key("lab", name))
        if now is None:
            await volumes.create(fresh_volume(name))
        elif chance.random() < 0.15:
            await volumes.remove(now)
        else:
            size = now.spec.size_gib + 1
            spec = now.spec.model_copy(update={"size_gib": size})
            await volumes.write(now, now.with_spec(spec))
    except (Refused, Retry):
        await asyncio.sleep(0.001)


async def publish(publisher: OutboxPublisher, store: Store) -> None:
    """Publish until cancelled, fed by a watch of the whole bucket as in a service."""
    feed = Feed(store)
    feed.add("", publisher.take)
    async with asyncio.TaskGroup() as group:
        group.create_task(feed.run())
        group.create_task(publisher.run())


async def stored(store: Store) -> dict[str, Volume]:
    """The volumes that are there, by id."""
    volumes = volumes_in(store)
    found: dict[str, Volume] = {}
    async for step in store.watch(""):
        if isinstance(step, Synced):
            break
        volumes.take(step)
    for volume in volumes.list():
        found[volume.meta.id] = volume
    return found


def check(events: Iterable[CloudEvent], present: dict[str, Volume]) -> list[str]:
    """What is wrong: lost, doubled, misplaced or invented events; nothing, if all is well."""
    wrong: list[str] = []
    told: dict[str, list[tuple[str, int]]] = defaultdict(list)
    ids: set[str] = set()
    for event in events:
        if event.id in ids:
            wrong.append(f"the id {event.id} is there twice")
        ids.add(event.id)
        told[event.subject].append((event.type.split(".")[3], event.data.generation))
    for id_, steps in told.items():
        last = present[id_].meta.generation if id_ in present else steps[-1][1]
        wanted = [("created", 1), *(("edited", n) for n in range(2, last + 1))]
        if id_ not in present:
            wanted.append(("deleted", last))
        if steps != wanted:
            wrong.append(f"{id_}: {steps} instead of {wanted}")
    wrong.extend(f"{id_} is there and was never told" for id_ in present.keys() - told.keys())
    return wrong
