"""CD-ROMs: behind the disks in order of booting, taken out and changed while the guest runs."""

from __future__ import annotations

from typing import Any

import pytest

from trivet.contracts.compute.endpoints.vm_eject import ENDPOINT as EJECT
from trivet.contracts.compute.endpoints.vm_start import ENDPOINT as START
from trivet.contracts.compute.endpoints.vm_stop import ENDPOINT as STOP
from trivet.contracts.compute.endpoints.vm_stop import StopRequest
from trivet.contracts.compute.vm import Power, Vm, VmSpec
from trivet.contracts.endpoint import Ref
from trivet.contracts.errors import REFERENCE, Refused
from trivet.contracts.resource import Phase

REF = Ref(project="p", name="web")


def ready(vm: Vm) -> bool:
    return vm.status.power is Power.RUNNING and vm.status.guest_ready


def current(vm: Vm) -> bool:
    told = vm.status.condition("HardwareCurrent")
    return vm.settled() and told is not None and told.status == "true"


def drive(world: Any, vm: Vm) -> list[tuple[str, bool, int | None]]:
    running = world.host().domains[vm.meta.id].running
    return [(d.name, d.cd, d.boot_order) for d in running.disks]


async def iso(world: Any, name: str) -> None:
    await world.import_image(name)

    async def imported() -> bool:
        return (await world.image(name)).status.phase is Phase.READY

    await world.eventually(imported)


async def test_a_cdrom_boots_behind_the_disks_and_is_changed_as_the_guest_runs(world: Any) -> None:
    await iso(world, "first")
    await iso(world, "second")
    await world.create(iso="first")
    vm = await world.until(ready)
    assert drive(world, vm) == [("root", False, 1), ("cd-first", True, 2)]
    volume = world.volumes.things["web-cd-first"]
    assert (volume.spec.source.volume, volume.spec.size_gib) == ("first-image", 2)
    await world.edit(iso="second")
    vm = await world.until(lambda v: current(v) and "web-cd-first" not in world.volumes.things)
    assert drive(world, vm) == [("root", False, 1), ("cd-second", True, None)]
    await world.harness.call(EJECT, REF)
    vm = await world.until(lambda v: current(v) and len(v.status.disks) == 1)
    assert drive(world, vm) == [("root", False, 1)]
    assert vm.status.epoch == 1
    await world.eventually(lambda: "web-cd-second" not in world.volumes.things)
    assert (await world.harness.call(EJECT, REF)).spec.iso is None
    await world.edit(iso="first")
    vm = await world.until(lambda v: current(v) and len(v.status.disks) == 2)
    assert drive(world, vm)[1][:2] == ("cd-first", True), "the drive is still there"


async def test_without_a_drive_it_comes_with_the_next_start(world: Any) -> None:
    await iso(world, "first")
    await world.create()
    await world.until(ready)
    await world.edit(iso="first")

    def told(vm: Vm) -> bool:
        found = vm.status.condition("HardwareCurrent")
        return found is not None and found.reason == "NextStart"

    vm = await world.until(lambda v: told(v) and len(v.status.disks) == 2)
    assert "cd-first is to come" in vm.status.condition("HardwareCurrent").message
    assert vm.settled()
    await world.harness.call(STOP, StopRequest(project="p", name="web"))
    await world.until(lambda v: v.status.power is Power.STOPPED)
    await world.harness.call(START, REF)
    vm = await world.until(lambda v: ready(v) and current(v))
    assert drive(world, vm) == [("root", False, 1), ("cd-first", True, 2)]


async def test_what_is_no_cdrom(world: Any) -> None:
    with pytest.raises(Refused) as refused:
        await world.create(iso="nope")
    assert refused.value.code is REFERENCE
    assert "there is no image nope" in refused.value.detail
    with pytest.raises(ValueError, match="CD-ROM"):
        VmSpec.model_validate({"iso": "x", "disks": [{"name": "cd-x", "size_gib": 1}]})
