"""Snapshots through the storage service: taken, cloned, gone back to, and their end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.functional.storage.conftest import PROJECT, Storage, code_of, until

from trivet.contracts.endpoint import CreateRequest, DeleteRequest, GetRequest, NewMeta
from trivet.contracts.errors import IN_USE, NOT_FOUND, REFERENCE, TrivetError
from trivet.contracts.resource import Phase
from trivet.contracts.storage.codes import NOT_READY, SHRINK
from trivet.contracts.storage.endpoints.pools import CRUD as POOLS
from trivet.contracts.storage.endpoints.snapshots import CRUD as SNAPSHOTS
from trivet.contracts.storage.endpoints.volume_revert import ENDPOINT as REVERT
from trivet.contracts.storage.endpoints.volume_revert import RevertRequest
from trivet.contracts.storage.snapshot import Snapshot, SnapshotSpec
from trivet.contracts.storage.volume import Attachment, Volume, VolumeSource
from trivet.testing.fakes.volume_machine import BLOCK

ONES, TWOS = b"\x01" * BLOCK, b"\x02" * BLOCK


async def take(storage: Storage, name: str, *volumes: str) -> Snapshot:
    request = CreateRequest[SnapshotSpec](
        meta=NewMeta(name=name, project=PROJECT), spec=SnapshotSpec(volumes=volumes)
    )
    await storage.harness.call(SNAPSHOTS.create, request)
    return await show(storage, name)


async def show(storage: Storage, name: str, settle_s: float = 10) -> Snapshot:
    request = GetRequest(project=PROJECT, name=name, settle_s=settle_s)
    found: Snapshot = await storage.harness.call(SNAPSHOTS.get, request)
    return found


async def drop(storage: Storage, name: str) -> None:
    await storage.harness.call(SNAPSHOTS.delete, DeleteRequest(project=PROJECT, name=name))


async def revert(storage: Storage, name: str, snapshot: str | None = None) -> Volume:
    request = RevertRequest(project=PROJECT, name=name, snapshot=snapshot)
    await storage.harness.call(REVERT, request)
    return await storage.show(name)


async def gone(storage: Storage, name: str) -> bool:
    try:
        await show(storage, name, settle_s=0)
    except TrivetError as error:
        return error.code is NOT_FOUND
    return False


def write(storage: Storage, volume: Volume, data: bytes) -> None:
    """As a guest would, into the replica that is served."""
    storage.machine.replicas[volume.meta.id].blocks[0] = data


async def test_a_snapshot_is_taken_cloned_and_gone_back_to(storage: Storage) -> None:
    one, two = await storage.make("one"), await storage.make("two", size_gib=2)
    held: Attachment = await storage.attach("one")
    write(storage, one, ONES)
    snapshot = await take(storage, "s", "one", "two")
    assert snapshot.status.phase is Phase.READY
    assert snapshot.status.taken_at is not None
    assert [(p.name, p.node, p.size_bytes) for p in snapshot.status.parts] == [
        ("one", "n1", 2**30),
        ("two", "n1", 2**31),
    ]
    write(storage, one, TWOS)
    assert await storage.attach("one") == held
    clone = await storage.make("clone", source=VolumeSource(snapshot="s", volume="one"))
    assert storage.machine.replicas[clone.meta.id].blocks[0] == ONES
    assert await code_of(revert(storage, "one", "s")) is IN_USE
    await storage.detach("one")
    back = await revert(storage, "one")
    assert (back.status.phase, back.status.reverting) == (Phase.READY, None)
    assert storage.machine.replicas[one.meta.id].blocks[0] == ONES
    assert (await storage.attach("one")).epoch == held.epoch + 1
    assert two.meta.id in storage.machine.snapshots[snapshot.meta.id]


async def test_space_is_promised_and_given_back(storage: Storage) -> None:
    volume = await storage.make("data", size_gib=2)
    write(storage, volume, ONES)
    snapshot = await take(storage, "s", "data")
    await until("it holds what it takes", lambda: _claimed(storage, 2 * 2**30 + BLOCK))
    await until("that is on record", lambda: _recorded(storage, BLOCK))
    await drop(storage, "s")
    await until("it is gone", lambda: gone(storage, "s"))
    assert snapshot.meta.id not in storage.machine.snapshots
    await until("its space is free", lambda: _claimed(storage, 2 * 2**30))


async def _recorded(storage: Storage, wanted: int) -> bool:
    return (await show(storage, "s")).status.claimed_bytes == wanted


async def _claimed(storage: Storage, wanted: int) -> bool:
    ledgers = storage.harness.store("storage")
    pool = await storage.harness.call(POOLS.get, GetRequest(name="p"))
    entry = await ledgers.get(f"ledger.{pool.meta.id}.n1")
    assert entry is not None

    claims = json.loads(entry.value)["claims"]
    return sum(c["size_bytes"] for c in claims.values()) == wanted


async def test_what_has_snapshots_stays(storage: Storage) -> None:
    await storage.make("data")
    await take(storage, "s", "data")
    assert await code_of(storage.delete("data")) is IN_USE
    request = DeleteRequest(name="p")
    assert await code_of(storage.harness.call(POOLS.delete, request)) is IN_USE
    await drop(storage, "s")
    await until("it is gone", lambda: gone(storage, "s"))
    await storage.delete("data")


async def test_a_snapshot_stays_until_what_is_made_from_it_is_made(storage: Storage) -> None:
    await storage.make("data")
    snapshot = await take(storage, "s", "data")
    storage.machine.fail_before["create"] = 5
    await storage.ask("clone", source=VolumeSource(snapshot="s"))
    await until("the copy was tried", lambda: storage.machine.fail_before["create"] < 5)
    await drop(storage, "s")
    await until("it was tried again", lambda: storage.machine.fail_before["create"] < 3)
    assert snapshot.meta.id in storage.machine.snapshots
    assert (await storage.show("clone")).status.phase is Phase.READY
    await until("it is gone", lambda: gone(storage, "s"))


async def test_what_cannot_be_is_refused(storage: Storage) -> None:
    await storage.make("data", size_gib=2)
    await storage.make("other")
    assert await code_of(take(storage, "s", "nothing")) is REFERENCE
    await take(storage, "s", "data", "other")
    small = VolumeSource(snapshot="s", volume="data")
    assert await code_of(storage.make("clone", source=small)) is SHRINK
    which = VolumeSource(snapshot="s")
    assert await code_of(storage.make("clone", source=which)) is REFERENCE
    absent = VolumeSource(snapshot="t")
    assert await code_of(storage.make("clone", source=absent)) is REFERENCE
    await take(storage, "only", "other")
    assert await code_of(revert(storage, "data", "only")) is REFERENCE
    assert await code_of(revert(storage, "data", "absent")) is REFERENCE


async def test_a_volume_that_goes_back_is_not_attached_meanwhile(storage: Storage) -> None:
    await storage.make("data")
    await take(storage, "s", "data")
    storage.machine.fail_before["revert"] = 1000
    request = RevertRequest(project=PROJECT, name="data")
    await storage.harness.call(REVERT, request)
    assert await code_of(storage.attach("data")) is NOT_READY
    storage.machine.fail_before["revert"] = 0
    assert (await storage.show("data")).status.phase is Phase.READY
    assert (await storage.attach("data")).socket


@pytest.mark.parametrize("operation", ["take", "drop", "revert"])
@pytest.mark.parametrize("when", ["fail_before", "fail_after"])
async def test_a_cut_in_the_middle_is_gone_on_from(
    storage: Storage, operation: str, when: str
) -> None:
    """The engine fails, and the service is killed; begun again, it comes to its end."""
    faults: Any = getattr(storage.machine, when)
    faults[operation] = 1
    volume = await storage.make("data")
    write(storage, volume, ONES)
    request = CreateRequest[SnapshotSpec](
        meta=NewMeta(name="s", project=PROJECT), spec=SnapshotSpec(volumes=("data",))
    )
    await storage.harness.call(SNAPSHOTS.create, request)
    await storage.harness.crash("storage")
    await storage.start()
    assert (await show(storage, "s")).status.phase is Phase.READY
    write(storage, volume, TWOS)
    await storage.harness.call(REVERT, RevertRequest(project=PROJECT, name="data"))
    await storage.harness.crash("storage")
    await storage.start()
    assert (await storage.show("data")).status.phase is Phase.READY
    assert storage.machine.replicas[volume.meta.id].blocks[0] == ONES
    await drop(storage, "s")
    await storage.harness.crash("storage")
    await storage.start()
    await until("it is gone", lambda: gone(storage, "s"))
    assert storage.machine.snapshots == {}
