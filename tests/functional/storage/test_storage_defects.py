"""What was once wrong in the storage service, and must not come back."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.functional.storage.conftest import NAMES, PROJECT, Storage, code_of, until

from trivet.contracts.endpoint import CreateRequest, DeleteRequest, EditRequest, NewMeta
from trivet.contracts.errors import CONFLICT, NOT_FOUND, TrivetError
from trivet.contracts.model import GIB, ResourceId
from trivet.contracts.storage.codes import DISK_TAKEN, NO_SPACE
from trivet.contracts.storage.disk import DiskFacts
from trivet.contracts.storage.endpoints.disks import CRUD as DISKS
from trivet.contracts.storage.endpoints.node_replica_serve import ENDPOINT as SERVE
from trivet.contracts.storage.endpoints.node_replica_serve import ServeRequest
from trivet.contracts.storage.endpoints.pools import CRUD as POOLS
from trivet.contracts.storage.pool import PoolMember, PoolSpec
from trivet.contracts.storage.volume import VOLUME, VolumeSource
from trivet.storage.domain import volume_plan
from trivet.testing.fakes import plugin as fakes
from trivet.testing.harness import Harness
from trivet.testing.memory_store import Fault


async def test_a_source_is_not_forgotten_while_it_is_still_copied(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the copy takes: the grace of a deletion is for nodes that don't answer."""
    monkeypatch.setattr(volume_plan, "DELETE_GRACE", timedelta(0))
    source = await storage.make("image")
    storage.machine.fail_before["create"] = 15
    await storage.ask("clone", source=VolumeSource(volume="image"))
    await until("the clone has a place", lambda: _placed(storage, "clone"))
    await storage.delete("image")
    await until("the copy was tried", lambda: storage.machine.fail_before["create"] < 12)
    assert source.meta.id in storage.machine.replicas
    assert (await storage.show("image", settle_s=0)).meta.id == source.meta.id
    storage.machine.fail_before["create"] = 0
    assert (await storage.show("clone")).status.phase == "ready"
    await until("the source is gone", lambda: _gone(storage, "image"))
    assert source.meta.id not in storage.machine.replicas


async def _placed(storage: Storage, name: str) -> bool:
    return bool((await storage.show(name, settle_s=0)).status.replicas)


async def _gone(storage: Storage, name: str) -> bool:
    try:
        await storage.show(name, settle_s=0)
    except TrivetError as error:
        return error.code is NOT_FOUND
    return False


async def test_a_node_serves_only_the_epoch_that_the_store_has(storage: Storage) -> None:
    volume = await storage.make("data")
    held = await storage.attach("data")
    for epoch in (held.epoch - 1, held.epoch + 1, held.epoch + 1000):
        request = ServeRequest(volume=volume.meta.id, epoch=epoch)
        assert await code_of(storage.harness.call(SERVE, request, node="n1")) is CONFLICT
    assert (await storage.attach("data")) == held
    mine = ServeRequest(volume=volume.meta.id, epoch=held.epoch)
    assert (await storage.harness.call(SERVE, mine, node="n1")).epoch == held.epoch
    await storage.detach("data")
    assert await code_of(storage.harness.call(SERVE, mine, node="n1")) is CONFLICT


async def test_a_store_from_a_backup_learns_of_later_epochs(storage: Storage) -> None:
    """What was attached when the backup was made, and attached anew since."""
    await storage.make("data")
    first = await storage.attach("data")
    store, key = storage.harness.store("storage"), VOLUME.key(PROJECT, "data")
    backup = await store.get(key)
    assert backup is not None
    for _ in range(2):
        await storage.detach("data")
        last = await storage.attach("data")
    await storage.detach("data")
    assert last.epoch > first.epoch
    await storage.harness.crash("storage")
    now = await store.get(key)
    assert now is not None
    await store.update(key, backup.value, now.revision)
    await storage.start()
    again = await storage.attach("data")
    assert again.epoch > last.epoch


async def test_a_growth_that_is_not_stored_has_taken_no_space(storage: Storage) -> None:
    volume = await storage.make("data")
    memory: Any = storage.harness.service("storage").runtime.store
    memory.fail(Fault.REFUSED_CONNECTION, when=lambda key: key == VOLUME.key(PROJECT, "data"))
    with pytest.raises(TrivetError):
        await storage.edit("data", size_gib=8)
    assert (await storage.show("data")).spec.size_gib == 1
    # What it would have taken is there for others.
    await storage.make("other", size_gib=9)
    assert await code_of(storage.edit("data", size_gib=2)) is NO_SPACE
    await storage.delete("other")
    await until("the space is free again", lambda: _grows(storage))
    assert (await storage.show("data")).status.size_bytes == 8 * GIB
    assert storage.machine.replicas[volume.meta.id].size_bytes == 8 * GIB


async def _grows(storage: Storage) -> bool:
    try:
        await storage.edit("data", size_gib=8)
    except TrivetError:
        return False
    return True


async def test_a_growth_that_finds_no_space_later_waits_and_says_so(storage: Storage) -> None:
    """Two grow at once where there is room for one: both edits may pass, one growth waits."""
    await storage.make("one")
    await storage.make("two")
    await asyncio.gather(
        storage.edit("one", size_gib=8), storage.edit("two", size_gib=8), return_exceptions=True
    )
    volumes = [await storage.show(n, settle_s=1) for n in ("one", "two")]
    assert sorted(v.status.claimed_bytes for v in volumes) == [GIB, 8 * GIB]
    waiting = [v for v in volumes if v.spec.size_gib == 8 and v.status.claimed_bytes == GIB]
    for volume in waiting:
        told = volume.status.condition("Grown")
        assert told is not None
        assert (told.status, told.reason) == ("false", "NoSpace")


@pytest.fixture
async def disks(tmp_path: Path) -> Any:
    facts = tuple(
        DiskFacts(device=f"/dev/vd{x}", serial=f"s{x}", size_bytes=GIB, holds="") for x in "abc"
    )
    configs = {"fake-inspector": {"disks": facts}}
    settings = {**NAMES, "claim_age_s": 0.2}
    async with Harness(tmp_path, plugins=(fakes,), storage=settings, configs=configs) as harness:
        storage = Storage(harness)
        await storage.start()
        for x in "abc":
            await until("the disk is found", lambda name=f"n1-s{x}": _has_role(harness, name))
        yield storage


async def _has_role(harness: Harness, name: str) -> bool:
    try:
        await harness.call(DISKS.edit, EditRequest(name=name, spec={"role": "data"}))
    except TrivetError:
        return False
    return True


def on_disks(*names: str) -> tuple[PoolMember, ...]:
    return (PoolMember(node="n1", disks=names),)


async def test_a_disk_belongs_to_one_pool(disks: Storage) -> None:
    request = [
        CreateRequest[PoolSpec](
            meta=NewMeta(name=name), spec=PoolSpec(members=on_disks("n1-sa", f"n1-s{x}"))
        )
        for name, x in (("p", "b"), ("q", "c"))
    ]
    answers = await asyncio.gather(
        *(disks.harness.call(POOLS.create, r) for r in request), return_exceptions=True
    )
    refused = [a for a in answers if isinstance(a, TrivetError)]
    assert [r.code for r in refused] == [DISK_TAKEN]
    won = next(a for a in answers if not isinstance(a, BaseException))
    # The loser's other disk is free, and the winner's may not lose their role.
    free = "n1-sc" if won.meta.name == "p" else "n1-sb"
    await disks.pool("r", members=on_disks(free))
    edit = EditRequest(name="n1-sa", spec={"role": "none"})
    assert await code_of(disks.harness.call(DISKS.edit, edit)) is DISK_TAKEN
    await disks.harness.call(POOLS.delete, DeleteRequest(name=won.meta.name))
    await until("its disks are free", lambda: _makes(disks, "n1-sa"))


async def test_the_disks_of_a_pool_that_never_came_are_free_again(disks: Storage) -> None:
    memory: Any = disks.harness.service("storage").runtime.store
    memory.fail(Fault.REFUSED_CONNECTION, when=lambda key: key.startswith("pool."))
    with pytest.raises(TrivetError):
        await disks.pool("p", members=on_disks("n1-sa"))
    await until("the sweep has seen it", lambda: _makes(disks, "n1-sa"))


async def _makes(disks: Storage, disk: str) -> bool:
    try:
        await disks.pool("again", members=on_disks(disk))
    except TrivetError:
        return False
    return True


async def test_looking_at_all_volumes_costs_each_of_them_once(storage: Storage) -> None:
    """A restart looks at every volume; each look must not look at all the others."""
    count = 40
    await storage.pool("wide", overcommit=10.0)
    for n in range(count):
        await storage.ask(f"v{n}", size_gib=1, pool="wide")
    for n in range(count):
        assert (await storage.show(f"v{n}")).status.phase == "ready"
    await storage.harness.crash("storage")
    storage.machine.looked_at = 0
    storage.machine.calls.clear()
    await storage.start()
    await until("all were looked at", lambda: _looks(storage) >= count)
    assert storage.machine.looked_at <= 8 * count


def _looks(storage: Storage) -> int:
    return len({s for what, s in storage.machine.calls if what == "replicas" and s})


async def test_what_is_nobodys_is_told_and_left_alone(storage: Storage) -> None:
    volume = await storage.make("data")
    machine = storage.machine
    stray = machine.replicas[volume.meta.id]
    machine.replicas[ResourceId("volume-stray")] = stray

    async def told(status: str) -> bool:
        condition = (await storage.show_pool("p")).status.condition("Orphans-n1")
        return condition is not None and condition.status == status

    await until("the orphan is told", lambda: told("true"))
    condition = (await storage.show_pool("p")).status.condition("Orphans-n1")
    assert condition is not None
    assert condition.message == "a replica of volume-stray"
    assert "volume-stray" in machine.replicas
    del machine.replicas[ResourceId("volume-stray")]
    await until("its absence is told", lambda: told("false"))
