"""Shares, limits and cores of a VM's own, as they change while guests run."""

from __future__ import annotations

from typing import Any

import pytest

from trivet.contracts.compute.hypervisor import DomainTuning
from trivet.contracts.compute.vm import Power, Vm


def ready(vm: Vm) -> bool:
    return vm.status.power is Power.RUNNING and vm.status.guest_ready


def current(vm: Vm) -> bool:
    told = vm.status.condition("HardwareCurrent")
    return vm.settled() and told is not None and told.status == "true"


def tuning(world: Any, vm: Vm) -> DomainTuning:
    found = world.host().domains[vm.meta.id].running.cpu
    assert isinstance(found, DomainTuning)
    return found


async def test_tuning_changes_while_the_guest_runs(world: Any) -> None:
    await world.create(vcpus=2, cpu={"shares": 512})
    vm = await world.until(ready)
    assert tuning(world, vm) == DomainTuning(shares=512)
    await world.edit(cpu={"shares": None, "limit_pct": 20, "pin": [1, 3]})
    vm = await world.until(current)
    assert tuning(world, vm) == DomainTuning(shares=2048, limit_pct=20, pin=(1, 3))
    assert vm.status.epoch == 1
    world.host().domains[vm.meta.id].tampered = True
    await world.eventually(lambda: not world.host().domains[vm.meta.id].tampered)


async def test_cores_of_its_own_drive_others_off_them(world: Any) -> None:
    await world.create("plain", vcpus=1)
    plain = await world.until(ready, "plain")
    await world.create("loud", vcpus=2, cpu={"exclusive": True})
    loud = await world.until(ready, "loud")
    others = tuple(range(2, 8))
    await world.eventually(lambda: tuning(world, plain).allowed == others)
    assert tuning(world, loud) == DomainTuning(shares=2048, pin=(0, 1), allowed=others)
    await world.edit("loud", cpu={"exclusive": False})
    await world.eventually(lambda: tuning(world, plain).allowed == ())
    await world.until(current, "loud")
    assert tuning(world, loud).pin == ()


async def test_a_reservation_is_counted_and_lifts_a_vm(world: Any) -> None:
    await world.create("plain", vcpus=2, cpu={"shares": 7000})
    plain = await world.until(ready, "plain")
    await world.create("sure", vcpus=4, cpu={"reservation_pct": 100})
    sure = await world.until(ready, "sure")
    assert (await world.node()).status.used_cpu_pct == 400
    weights = tuning(world, sure).shares, tuning(world, plain).shares
    assert weights == (7000, 7000), "four of eight processors are half of the weight"
    await world.create("more", vcpus=5, cpu={"reservation_pct": 100})
    told = await world.until(lambda vm: bool(vm.status.placement), "more")
    assert "needs 500 % of a processor for sure, 400 of 800 % free" in told.status.placement


@pytest.mark.parametrize("hypervisor", [{"cpu_control": False}])
async def test_what_would_have_no_effect_is_told(world: Any) -> None:
    await world.create("limited", cpu={"limit_pct": 20})
    told = await world.until(lambda vm: bool(vm.status.placement), "limited")
    assert told.status.node is None
    assert "has no cgroups for processors" in told.status.placement
    await world.create("plain")
    vm = await world.until(ready, "plain")
    assert tuning(world, vm) == DomainTuning()
    await world.edit("plain", cpu={"limit_pct": 20})
    vm = await world.until(lambda v: v.status.condition("Scheduled").status == "false", "plain")
    assert "no cgroups" in vm.status.condition("Scheduled").message


async def test_what_somebody_else_changed_is_put_back_and_told(world: Any) -> None:
    await world.create()
    vm = await world.until(ready)
    world.host().domains[vm.meta.id].altered = True
    vm = await world.until(lambda v: v.status.condition("Definition") is not None)
    assert vm.status.condition("Definition").reason == "Restored"
    assert not world.host().domains[vm.meta.id].altered
    assert vm.status.epoch == 1
