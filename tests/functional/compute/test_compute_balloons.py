"""Guests with a floor give memory back while their node is short of it, and get it again."""

from __future__ import annotations

from typing import Any

import pytest

from trivet.compute.node import balloons
from trivet.contracts.compute.vm import Power, Vm


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balloons, "LOOK_S", 0.05)


def ready(vm: Vm) -> bool:
    return vm.status.power is Power.RUNNING and vm.status.guest_ready


async def test_memory_is_given_and_had_again(world: Any) -> None:
    await world.create("gives", memory_mib=1024, memory_min_mib=256)
    await world.create("keeps", memory_mib=1024)
    gives, keeps = await world.until(ready, "gives"), await world.until(ready, "keeps")
    world.host().available_mib = 400
    await world.until(lambda v: v.status.balloon is not None, "gives")
    domains = world.host().domains
    await world.eventually(lambda: domains[gives.meta.id].uses_mib == 1024 - 624)
    assert domains[keeps.meta.id].uses_mib == 1024
    vm = await world.vm("gives")
    assert vm.status.balloon.target_mib == 400
    assert vm.status.runs_with.memory_mib == 1024
    world.host().available_mib = -200
    await world.eventually(lambda: domains[gives.meta.id].uses_mib == 256)
    world.host().available_mib = 8000
    await world.until(lambda v: v.status.balloon.target_mib == 1024, "gives")
    await world.eventually(lambda: domains[gives.meta.id].uses_mib == 1024)


async def test_a_new_run_has_all_of_it(world: Any) -> None:
    await world.create(memory_mib=1024, memory_min_mib=256)
    vm = await world.until(ready)
    world.host().available_mib = 0
    await world.until(lambda v: v.status.balloon is not None)
    world.host().available_mib = 900
    world.host().crash(vm.meta.id)
    vm = await world.until(lambda v: ready(v) and v.status.epoch == 2)
    assert vm.status.balloon is None
    assert world.host().domains[vm.meta.id].uses_mib == 1024
