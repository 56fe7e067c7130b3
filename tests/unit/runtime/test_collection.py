"""Collections: compare-and-swap, own writes seen at once, events carried and never doubled."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.contracts.errors import CONFLICT, NAME_TAKEN, Refused, Retry
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta, Phase
from trivet.contracts.storage.volume import VOLUME, Volume, VolumeSpec, VolumeStatus
from trivet.runtime.clock import SystemClock
from trivet.runtime.collection import Collection
from trivet.runtime.feed import Feed
from trivet.runtime.record import Record
from trivet.runtime.store import Change
from trivet.testing.memory_bus import MemoryBroker
from trivet.testing.memory_store import Fault, MemoryStore

KEY = "volume.lab.data"


def volume(name: str = "data", id_: str = "volume-1") -> Volume:
    meta = Meta(id=ResourceId(id_), name=name, project="lab", created_at=datetime.now(UTC))
    return Volume(meta=meta, spec=VolumeSpec(size_gib=1), status=VolumeStatus())


def ready(resource: Volume) -> Volume:
    return resource.with_status(phase=Phase.READY)


async def sent(store: MemoryStore, key: str = KEY) -> list[tuple[str, str]]:
    """The outbox of the stored record: ids and verbs."""
    entry = await store.get(key)
    assert entry is not None
    record = Record[Volume].model_validate_json(entry.value)
    return [(i.id("test", entry.revision), i.event.type.split(".")[3]) for i in record.outbox]


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def store(broker: MemoryBroker) -> MemoryStore:
    return MemoryStore(broker)


@pytest.fixture
def volumes(store: MemoryStore) -> Collection[Volume]:
    return Collection(VOLUME, store, SystemClock())


@pytest.fixture
async def fed(broker: MemoryBroker) -> AsyncIterator[Collection[Volume]]:
    """Another process's view of the same bucket."""
    store = MemoryStore(broker)
    other = Collection(VOLUME, store, SystemClock())
    feed = Feed(store)
    feed.add(other.prefix, other.take)
    task = asyncio.create_task(feed.run())
    await feed.synced()
    yield other
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_own_writes_are_seen_at_once(volumes: Collection[Volume]) -> None:
    made = await volumes.create(volume())
    assert volumes.get("data", "lab") == made
    assert volumes.by_id("volume-1") == made
    changed = await volumes.write(made, ready(made))
    assert changed.meta.revision > made.meta.revision
    assert volumes.list("lab") == [changed]
    assert volumes.list("shop") == []


async def test_a_name_is_taken_once(volumes: Collection[Volume], store: MemoryStore) -> None:
    await volumes.create(volume())
    with pytest.raises(Refused) as refused:
        await Collection(VOLUME, store, SystemClock()).create(volume(id_="volume-2"))
    assert refused.value.code is NAME_TAKEN


async def test_a_write_over_another_is_refused_and_the_copy_is_fresh(
    volumes: Collection[Volume], fed: Collection[Volume]
) -> None:
    made = await volumes.create(volume())
    await fed.mutate(KEY, ready)
    with pytest.raises(Refused) as refused:
        await volumes.write(made, made.with_status(epoch=7))
    assert refused.value.code is CONFLICT
    assert volumes.by_key(KEY) == fed.by_key(KEY)


async def test_mutate_goes_on_over_conflicts(
    volumes: Collection[Volume], fed: Collection[Volume]
) -> None:
    await volumes.create(volume())

    def one_more(resource: Volume) -> Volume:
        return resource.with_status(epoch=resource.status.epoch + 1)

    await asyncio.gather(*(c.mutate(KEY, one_more) for c in (volumes, fed) * 5))
    final = await volumes.fresh(KEY)
    assert final is not None
    assert final.status.epoch == 10


async def test_an_equal_write_is_no_write(volumes: Collection[Volume], store: MemoryStore) -> None:
    made = await volumes.create(volume())
    before = store.writes
    assert await volumes.write(made, made) == made
    assert store.writes == before


async def test_events_ride_in_the_record_under_ids_that_stay(
    volumes: Collection[Volume], store: MemoryStore
) -> None:
    made = await volumes.create(volume())
    first = await sent(store)
    await volumes.write(made, ready(made))
    both = await sent(store)
    assert [verb for _, verb in both] == ["created", "phase_changed"]
    assert both[0] == first[0]
    assert len({id_ for id_, _ in both}) == 2


async def test_what_was_published_is_left_out_of_the_next_write(
    volumes: Collection[Volume], store: MemoryStore
) -> None:
    made = await volumes.create(volume())
    ((id_, _),) = await sent(store)
    volumes._published.add(id_)
    await volumes.write(made, ready(made))
    assert [verb for _, verb in await sent(store)] == ["phase_changed"]


async def test_gone_and_made_again_keeps_the_last_events(
    volumes: Collection[Volume], store: MemoryStore
) -> None:
    made = await volumes.create(volume())
    await volumes.remove(made)
    await volumes.remove(made)
    assert volumes.by_key(KEY) is None
    assert volumes.by_id("volume-1") is None
    again = await volumes.create(volume(id_="volume-2"))
    assert volumes.by_id("volume-2") == again
    assert [verb for _, verb in await sent(store)] == ["created", "deleted", "created"]
    await volumes.remove(made)
    assert volumes.by_key(KEY) is not None, "a namesake is not the one that was to be removed"


async def test_an_unknown_outcome_is_told_and_leaves_one_write(
    volumes: Collection[Volume], store: MemoryStore
) -> None:
    made = await volumes.create(volume())
    store.fail(Fault.LOST_AFTER)
    with pytest.raises(Retry):
        await volumes.write(made, ready(made))
    await volumes.mutate(KEY, ready)
    assert [verb for _, verb in await sent(store)] == ["created", "phase_changed"]


async def test_the_feed_tells_changes_and_deletions(
    volumes: Collection[Volume], fed: Collection[Volume]
) -> None:
    woken: list[str] = []
    fed.on_change(woken.append)
    made = await volumes.create(volume())
    assert await fed.wait_for(KEY, lambda v: v is not None, 5) is not None
    await volumes.remove(made)
    assert await fed.wait_for(KEY, lambda v: v is None, 5) is None
    assert woken == [KEY, KEY]


class ToldFirst(MemoryStore):
    """A store whose watch is faster than its acknowledgements."""

    def __init__(self, broker: MemoryBroker) -> None:
        super().__init__(broker)
        self.sink: Collection[Volume] | None = None
        self.instead: bytes | None = None

    async def create(self, key: str, value: bytes) -> int:
        revision = await super().create(key, value)
        assert self.sink is not None
        self.sink.take(Change(key, self.instead or value, revision))
        return revision


async def test_an_own_write_that_the_watch_tells_first_is_what_was_written(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ToldFirst(broker)
    volumes = store.sink = Collection(VOLUME, store, SystemClock())
    read: list[bytes] = []
    parse = volumes._record_model.model_validate_json

    def counted(value: bytes) -> Record[Volume]:
        read.append(value)
        return parse(value)

    monkeypatch.setattr(volumes._record_model, "model_validate_json", counted)
    made = await volumes.create(volume())
    assert volumes.by_key(KEY) == made
    assert made.meta.revision > 0
    assert not read, "it need not be read to be known"
    other = Record[Volume](resource=ready(volume("other", "volume-2")))
    store.instead = other.model_dump_json().encode()
    await volumes.create(volume("other", "volume-2"))
    found = volumes.get("other", "lab")
    assert read
    assert found is not None
    assert found.status.phase is Phase.READY, "another's write of the key is what counts"


@given(
    steps=st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["lab", "lab2", "l"]),
                             st.booleans()), max_size=30),
    after=st.sampled_from([None, "volume.lab.", "volume.lab.b", "volume.lab.zz", "volume.l.c"]),
)  # fmt: skip
def test_lists_and_scans_are_in_order_whatever_came_and_went(
    steps: list[tuple[str, str, bool]], after: str | None
) -> None:
    volumes = Collection(VOLUME, MemoryStore(), SystemClock())
    there: dict[str, Volume] = {}
    for revision, (name, project, kept) in enumerate(steps, 1):
        meta = Meta(
            id=ResourceId(f"{project}-{name}"),
            name=name,
            project=project,
            created_at=datetime.now(UTC),
        )
        one = volume().model_copy(update={"meta": meta})
        key = VOLUME.key(project, name)
        value = Record[Volume](resource=one).model_dump_json().encode() if kept else None
        volumes.take(Change(key, value, revision))
        if kept:
            there[key] = one
        else:
            there.pop(key, None)
    wanted = [k for k in sorted(there) if k.startswith("volume.lab.")]
    assert [volumes.key_of(v) for v in volumes.list("lab")] == wanted
    behind = [k for k in wanted if after is None or k > after]
    assert [volumes.key_of(v) for v in volumes.scan("lab", after)] == behind


async def test_a_wait_ends_with_what_is_there(volumes: Collection[Volume]) -> None:
    made = await volumes.create(volume())
    found = await volumes.wait_for(KEY, lambda v: v is not None and v.settled(), 0.01)
    assert found == made
    assert not volumes._waiters
