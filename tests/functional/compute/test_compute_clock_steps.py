"""The clock is set while a guest is given time: it has that time, no less and no hour more."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from trivet.contracts.compute.endpoints.vm_stop import ENDPOINT as STOP
from trivet.contracts.compute.endpoints.vm_stop import StopRequest
from trivet.contracts.compute.hypervisor import Act
from trivet.contracts.compute.vm import Power, Vm

HOUR_S = 3600.0


def running(vm: Vm) -> bool:
    return vm.status.power is Power.RUNNING and vm.status.guest_ready


@pytest.fixture
def hypervisor() -> dict[str, Any]:
    return {"deaf_guests": True}


async def asked_to_stop(world: Any, grace_s: int) -> Vm:
    """A guest that ignores the power button, which has been pressed."""
    await world.create()
    vm: Vm = await world.until(running)
    (driver,) = world.host().drivers
    pressed: list[Act] = []
    act = driver.act

    async def noted(id_: Any, verb: Act) -> None:
        pressed.append(verb)
        await act(id_, verb)

    driver.act = noted
    await world.harness.call(STOP, StopRequest(project="p", name="web", grace_s=grace_s))
    await world.eventually(lambda: Act.SHUTDOWN in pressed)
    return vm


async def test_set_forward_it_takes_no_time_away(world: Any) -> None:
    vm = await asked_to_stop(world, grace_s=1800)
    world.harness.clock.set_ahead(HOUR_S)
    (driver,) = world.host().drivers
    domains = driver.domains
    looks: list[datetime] = []

    async def counted(*asked: Any) -> Any:
        looks.append(world.harness.clock.now())
        return await domains(*asked)

    driver.domains = counted
    # The agent looks by itself, and plans for what it has seen: three times is more than once.
    await world.eventually(lambda: len(looks) >= 3)
    assert world.host().domains[vm.meta.id].power is Power.RUNNING
    await world.harness.call(STOP, StopRequest(project="p", name="web", force=True))
    await world.until(lambda v: v.status.power is Power.STOPPED)


async def test_set_back_it_adds_no_hour(world: Any) -> None:
    vm = await asked_to_stop(world, grace_s=1)
    world.harness.clock.set_ahead(-HOUR_S)
    await world.until(lambda v: v.status.power is Power.STOPPED)
    assert world.host().domains[vm.meta.id].reason == "destroyed"


async def test_set_back_a_crashed_guest_starts_again_all_the_same(world: Any) -> None:
    await world.create()
    vm = await world.until(running)
    for epoch in (1, 2):
        await world.until(lambda v, e=epoch: running(v) and v.status.epoch == e)
        world.host().crash(vm.meta.id)
    await world.until(lambda v: v.status.crashes == 2)
    world.harness.clock.set_ahead(-HOUR_S)
    await world.until(lambda v: running(v) and v.status.epoch == 3)
