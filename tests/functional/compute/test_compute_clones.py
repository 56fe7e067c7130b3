"""Clones of VMs: disks as the origin's were together at one moment, and all else of their own."""

from __future__ import annotations

from typing import Any

import pytest

from trivet.contracts.compute.endpoints.vm_clone import ENDPOINT as CLONE
from trivet.contracts.compute.endpoints.vm_clone import CloneRequest
from trivet.contracts.compute.endpoints.vms import CRUD as VMS
from trivet.contracts.compute.vm import Power, Vm, VmSpec, WantedPower
from trivet.contracts.endpoint import DeleteRequest
from trivet.contracts.errors import NAME_TAKEN, REFERENCE, Refused
from trivet.contracts.resource import Phase
from trivet.contracts.storage.volume import CloneMode

DISKS = [{"name": "root", "size_gib": 1}, {"name": "data", "size_gib": 2}]


def ready(vm: Vm) -> bool:
    return vm.status.power is Power.RUNNING and vm.status.guest_ready


async def clone(world: Any, new: str = "copy", **how: Any) -> Vm:
    request = CloneRequest(project="p", name="web", new=new, **how)
    made: Vm = await world.harness.call(CLONE, request)
    return made


@pytest.mark.parametrize("mode", ["linked", "full"])
async def test_a_clone_has_disks_of_one_moment_and_a_self_of_its_own(world: Any, mode: str) -> None:
    await world.create(
        disks=DISKS, ssh_keys=["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me"], cpu={"shares": 512}
    )
    web = await world.until(ready)
    cut: list[Any] = []
    world.snapshots.make = lambda r: cut.append(r) or world.make_snapshot(r)
    await clone(world, mode=mode)
    copy = await world.until(ready, "copy")
    assert [r.spec.volumes for r in cut] == [("web-root", "web-data")]
    assert cut[0].owner.id == copy.meta.id
    for name in ("root", "data"):
        source = world.volumes.things[f"copy-{name}"].spec.source
        assert (source.snapshot, source.volume) == (cut[0].meta.name, f"web-{name}")
        assert source.mode is CloneMode(mode)
    assert copy.spec.cpu == web.spec.cpu
    assert copy.status.nics[0].mac != web.status.nics[0].mac
    assert copy.status.addresses != web.status.addresses
    seeds = world.host().seeds
    assert copy.meta.id in seeds[copy.meta.id].meta_data
    assert '"local-hostname": "copy"' in seeds[copy.meta.id].meta_data
    assert seeds[copy.meta.id].digest != seeds[web.meta.id].digest
    await world.eventually(lambda: not world.snapshots.things)
    assert (await world.vm()).status.epoch == web.status.epoch, "the origin ran on"


async def test_what_can_not_be_cloned(world: Any) -> None:
    await world.create()
    await world.until(ready)
    with pytest.raises(Refused) as refused:
        await clone(world, "web")
    assert refused.value.code is NAME_TAKEN
    with pytest.raises(Refused) as refused:
        await world.create("other", origin="nope")
    assert refused.value.code is REFERENCE
    with pytest.raises(Refused):
        await world.edit(origin="web")
    with pytest.raises(ValueError, match="leave one out"):
        VmSpec(image="tiny", origin="web")


async def test_a_clone_waits_for_its_cut_and_goes_with_it(world: Any) -> None:
    await world.create()
    await world.until(ready)
    world.snapshot_phase = Phase.PENDING
    await clone(world, power=WantedPower.STOPPED)
    await world.until(lambda v: v.status.condition("PartsReady") is not None, "copy")
    assert "copy-root" not in world.volumes.things
    await world.harness.call(VMS.delete, DeleteRequest(project="p", name="copy"))
    await world.eventually(lambda: world.gone("copy"))
    assert not world.snapshots.things
    world.snapshot_phase = Phase.READY
    await clone(world, "later", power=WantedPower.STOPPED)
    vm = await world.until(lambda v: v.settled(), "later")
    assert vm.status.power is Power.STOPPED
    await world.eventually(lambda: not world.snapshots.things)


async def test_a_killed_controller_neither_cuts_twice_nor_forgets_a_cut(world: Any) -> None:
    await world.create()
    await world.until(ready)
    world.volume_phase = Phase.PENDING
    await clone(world)
    await world.eventually(lambda: "copy-root" in world.volumes.things)
    assert list(world.snapshots.things) == ["copy-origin"]
    await world.crash()
    await world.start()
    world.volume_phase = Phase.READY
    world.settle(world.volumes)
    await world.until(ready, "copy")
    assert world.snapshots.created == ["copy-origin"]
    await world.eventually(lambda: not world.snapshots.things)
