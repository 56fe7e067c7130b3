"""Cuts in a quiet moment: guests freeze around them, and thaw whatever happens."""

from __future__ import annotations

from typing import Any

import pytest
from tests.functional.storage.conftest import Storage
from tests.functional.storage.test_storage_snapshots import show, take

from trivet.contracts.compute.endpoints.node_vm_freeze import ENDPOINT as FREEZE
from trivet.contracts.compute.endpoints.node_vm_freeze import FreezeRequest, FreezeResponse
from trivet.contracts.compute.endpoints.node_vm_thaw import ENDPOINT as THAW
from trivet.contracts.compute.endpoints.node_vm_thaw import ThawRequest, ThawResponse
from trivet.contracts.errors import UNAVAILABLE, Retry
from trivet.contracts.storage.snapshot import Consistency
from trivet.testing.fakes.volume_engine import FakeVolumeEngine


class Guest:
    """Compute's side: one guest with an agent, which may be away, and its freeze, which may end."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.away, self.bound_passes = False, False
        self.said: list[str] = []
        self.frozen = False
        self.cut_while_frozen: list[bool] = []

    async def freeze(self, request: FreezeRequest, call: object) -> FreezeResponse:
        self.said.append(f"freeze {request.id}")
        if self.away:
            raise Retry(UNAVAILABLE, "no agent answers")
        self.frozen = True
        return FreezeResponse(filesystems=1)

    async def thaw(self, request: ThawRequest, call: object) -> ThawResponse:
        self.said.append(f"thaw {request.id}")
        was, self.frozen = self.frozen and not self.bound_passes, False
        return ThawResponse(filesystems=int(was))


@pytest.fixture
async def guest(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Guest:
    made = Guest(storage)
    await storage.harness.fake(FREEZE, made.freeze, node="n1")
    await storage.harness.fake(THAW, made.thaw, node="n1")
    cut = FakeVolumeEngine.take

    async def noted(self: Any, *args: Any) -> Any:
        made.cut_while_frozen.append(made.frozen)
        return await cut(self, *args)

    monkeypatch.setattr(FakeVolumeEngine, "take", noted)
    return made


async def test_a_guest_with_an_agent_is_cut_at_rest(storage: Storage, guest: Guest) -> None:
    await storage.make("one")
    await storage.make("two")
    for name in ("one", "two"):
        await storage.attach(name, holder="vm/vm-00000000000000aa")
    snapshot = await take(storage, "s", "one", "two")
    assert snapshot.status.consistency is Consistency.AGENT
    assert guest.said == ["freeze vm-00000000000000aa", "thaw vm-00000000000000aa"], "once a guest"
    assert guest.cut_while_frozen == [True]


@pytest.mark.parametrize(("away", "passes"), [(True, False), (False, True)])
async def test_without_one_it_is_as_after_a_power_cut(
    storage: Storage, guest: Guest, away: bool, passes: bool
) -> None:
    guest.away, guest.bound_passes = away, passes
    await storage.make("one")
    await storage.attach("one", holder="vm/vm-00000000000000aa")
    snapshot = await take(storage, "s", "one")
    assert snapshot.status.taken_at is not None
    assert snapshot.status.consistency is Consistency.CRASH
    assert not guest.frozen


async def test_what_nobody_holds_is_offline(storage: Storage, guest: Guest) -> None:
    await storage.make("one")
    assert (await take(storage, "s", "one")).status.consistency is Consistency.OFFLINE
    assert guest.said == []


async def test_a_cut_that_fails_is_followed_by_a_thaw(
    storage: Storage, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    await storage.make("one")
    await storage.attach("one", holder="vm/vm-00000000000000aa")
    cut, failures = FakeVolumeEngine.take, [True]

    async def fails_once(self: Any, *args: Any) -> Any:
        if failures:
            failures.pop()
            raise Retry(UNAVAILABLE, "not now", retry_after_s=0.05)
        return await cut(self, *args)

    monkeypatch.setattr(FakeVolumeEngine, "take", fails_once)
    await take(storage, "s", "one")
    snapshot = await show(storage, "s")
    assert snapshot.status.consistency is Consistency.AGENT
    assert [word.split()[0] for word in guest.said] == ["freeze", "thaw"] * 2
