"""VMs end to end within compute: asked, placed, started, acted on, deleted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trivet.contracts.compute.endpoints.node_drain import ENDPOINT as DRAIN
from trivet.contracts.compute.endpoints.node_drain import DrainRequest
from trivet.contracts.compute.endpoints.vm_instance_data import ENDPOINT as INSTANCE_DATA
from trivet.contracts.compute.endpoints.vm_instance_data import InstanceDataRequest
from trivet.contracts.compute.endpoints.vm_log import ENDPOINT as LOG
from trivet.contracts.compute.endpoints.vm_log import LogRequest
from trivet.contracts.compute.endpoints.vm_reset import ENDPOINT as RESET
from trivet.contracts.compute.endpoints.vm_resume import ENDPOINT as RESUME
from trivet.contracts.compute.endpoints.vm_start import ENDPOINT as START
from trivet.contracts.compute.endpoints.vm_stop import ENDPOINT as STOP
from trivet.contracts.compute.endpoints.vm_stop import StopRequest
from trivet.contracts.compute.endpoints.vm_suspend import ENDPOINT as SUSPEND
from trivet.contracts.compute.endpoints.vms import CRUD as VMS
from trivet.contracts.compute.vm import Power, Vm
from trivet.contracts.endpoint import CreateRequest, DeleteRequest, EditRequest, NewMeta, Ref
from trivet.contracts.errors import IMMUTABLE, IN_USE, INVALID, NOT_FOUND, REFERENCE, Refused
from trivet.contracts.resource import Phase
from trivet.contracts.storage.endpoints.snapshots import CRUD as SNAPSHOTS
from trivet.contracts.storage.snapshot import SnapshotSpec

REF = Ref(project="p", name="web")


def running(vm: Vm) -> bool:
    return vm.status.power is Power.RUNNING and vm.status.phase is Phase.READY


def stopped(vm: Vm) -> bool:
    return vm.status.power is Power.STOPPED and vm.status.phase is Phase.READY


async def test_created_until_ready(world: Any) -> None:
    await world.create()
    vm = await world.until(lambda v: running(v) and v.status.guest_ready)
    assert vm.settled()
    assert (vm.status.node, vm.status.epoch, vm.status.accel) == ("n1", 1, "tcg")
    assert vm.status.addresses == ("10.0.0.2",)
    assert [d.volume for d in vm.status.disks if d.attached] == ["web-root"]
    assert [n.port for n in vm.status.nics] == ["web-0"]
    assert "n1: can take it" in vm.status.placement
    node = await world.node()
    assert (node.status.used_memory_mib, node.status.used_vcpus) == (128, 1)
    log = await world.harness.call(LOG, LogRequest(project="p", name="web"))
    assert "READY" in log.text


async def test_a_guest_is_told_of_its_own_vm_alone(world: Any) -> None:
    await world.create(user_data="#cloud-config")
    vm = await world.until(running)
    asked = InstanceDataRequest(project="p", name="web", id=vm.meta.id)
    told = await world.harness.call(INSTANCE_DATA, asked)
    assert (told.id, told.name, told.node) == (vm.meta.id, "web", "n1")
    assert told.user_data == "#cloud-config"
    namesake = asked.model_copy(update={"id": "vm-00000000000000ff"})
    with pytest.raises(Refused) as caught:
        await world.harness.call(INSTANCE_DATA, namesake)
    assert caught.value.code is NOT_FOUND


async def test_stop_start_suspend_resume_reset_delete(world: Any) -> None:
    await world.create()
    vm = await world.until(lambda v: running(v) and v.status.guest_ready)
    domain = world.host().domains[vm.meta.id]

    await world.harness.call(SUSPEND, REF)
    await world.until(lambda v: v.status.power is Power.PAUSED and v.settled())
    await world.harness.call(RESUME, REF)
    await world.until(running)

    await world.harness.call(RESET, REF)
    await world.eventually(lambda: domain.boots == 2)

    await world.harness.call(STOP, StopRequest(project="p", name="web"))
    vm = await world.until(stopped)
    assert vm.status.stop_by is None
    assert domain.reason == "shutdown"
    assert world.volumes.things["web-root"].status.attachment is None
    with pytest.raises(Refused) as refused:
        await world.harness.call(RESET, REF)
    assert refused.value.code is INVALID

    await world.harness.call(START, REF)
    vm = await world.until(running)
    assert vm.status.epoch == 2
    await world.harness.call(STOP, StopRequest(project="p", name="web", force=True))
    await world.until(stopped)
    assert domain.reason == "destroyed"

    await world.harness.call(START, REF)
    await world.until(running)
    await world.harness.call(VMS.delete, DeleteRequest(project="p", name="web"))
    await world.eventually(world.gone)
    assert not world.host().domains
    assert not world.volumes.things
    assert not world.ports.things
    assert (await world.node()).status.promises == {}


async def test_a_guest_that_ignores_the_button_loses_its_power(world: Any) -> None:
    await world.create()
    vm = await world.until(running)
    for driver in world.host().drivers:
        driver.config = driver.config.model_copy(update={"deaf_guests": True})
    await world.harness.call(STOP, StopRequest(project="p", name="web", grace_s=1))
    await world.until(stopped)
    assert world.host().domains[vm.meta.id].reason == "destroyed"


async def test_a_guest_that_powers_itself_off_stays_off(world: Any) -> None:
    await world.create()
    vm = await world.until(running)
    world.host().power_off(vm.meta.id)
    vm = await world.until(lambda v: v.spec.power == "stopped" and stopped(v))
    assert vm.status.condition("Running").reason == "GuestPoweredOff"
    await world.harness.call(START, REF)
    assert (await world.until(running)).status.epoch == 2


async def test_a_guest_that_crashes_starts_again(world: Any) -> None:
    await world.create()
    vm = await world.until(running)
    world.host().crash(vm.meta.id)
    vm = await world.until(lambda v: running(v) and v.status.epoch == 2)
    assert vm.spec.power == "running"


async def test_a_disk_error_stops_the_guest_until_it_runs_on(world: Any) -> None:
    await world.create()
    vm = await world.until(running)
    world.host().io_error(vm.meta.id)
    vm = await world.until(running)
    assert vm.status.epoch == 1


async def test_a_guest_that_finds_no_space_waits_until_there_is_some(world: Any) -> None:
    await world.create()
    vm = await world.until(running)
    world.starved = "pool default is full on n1: grow the pool"
    world.host().io_error(vm.meta.id)
    vm = await world.until(lambda v: v.status.condition("Progress").reason == "PoolFull")
    assert vm.status.power == "paused"
    assert vm.status.phase is Phase.DEGRADED
    assert vm.status.condition("Progress").message == f"disk root: {world.starved}"
    world.starved = ""
    vm = await world.until(running)
    assert vm.status.epoch == 1
    assert vm.status.condition("Progress").status == "true"


async def test_one_that_does_not_fit_says_why_and_fits_later(world: Any) -> None:
    await world.create("big", memory_mib=15000)
    await world.until(running, "big")
    await world.create(memory_mib=4096)
    vm = await world.until(lambda v: v.status.condition("Scheduled") is not None)
    told = vm.status.condition("Scheduled")
    assert (told.status, told.reason) == ("false", "NoNode")
    assert told.message == "n1: needs 4096 MiB, 360 MiB free"
    assert vm.status.phase is Phase.PENDING
    assert not world.volumes.things.get("web-root")
    await world.harness.call(VMS.delete, DeleteRequest(project="p", name="big"))
    await world.until(running)


async def test_capacity_is_never_promised_twice(world: Any) -> None:
    await asyncio.gather(*(world.create(f"v{i}", memory_mib=6000) for i in range(5)))
    await world.eventually(lambda: len(world.host().domains) == 2)
    for i in range(5):
        await world.until(lambda v: v.status.condition("Scheduled") is not None, f"v{i}")
    node = await world.node()
    assert node.status.used_memory_mib == 12000 <= node.status.allocatable_memory_mib


async def test_unknown_references_are_refused(world: Any) -> None:
    with pytest.raises(Refused) as refused:
        await world.create(
            image="nope",
            nics=[{"network": "wan", "security_groups": ["default", "strict"]}],
            placement={"nodes": ["n9"]},
        )
    assert refused.value.code is REFERENCE
    named = {e.message for e in refused.value.errors}
    assert named == {
        "there is no image nope",
        "there is no network wan",
        "there is no security-group strict",
        "there is no node n9",
    }


async def test_what_can_not_change_is_refused(world: Any) -> None:
    await world.create(power="stopped")
    await world.until(stopped)
    for patch in ({"firmware": "uefi"}, {"image": "x"}):
        with pytest.raises(Refused) as refused:
            await world.harness.call(VMS.edit, EditRequest(project="p", name="web", spec=patch))
        assert refused.value.code is IMMUTABLE
    with pytest.raises(Refused) as refused:
        await world.harness.call(SUSPEND, REF)
    assert refused.value.code is INVALID
    with pytest.raises(Refused):
        await world.create("other", power="paused")


async def test_new_hardware_takes_effect_at_the_next_start(world: Any) -> None:
    await world.create()
    vm = await world.until(running)
    patch = {"vcpus": 2, "memory_mib": 256}
    await world.harness.call(VMS.edit, EditRequest(project="p", name="web", spec=patch))
    vm = await world.until(lambda v: v.status.condition("HardwareCurrent").status == "false")
    told = vm.status.condition("HardwareCurrent")
    assert told.reason == "NextStart"
    assert told.message == ("at its next start: 2 vcpus (has 1), 256 MiB of memory (has 128)")
    assert vm.settled()
    assert world.host().domains[vm.meta.id].running.memory_mib == 128
    await world.harness.call(STOP, StopRequest(project="p", name="web"))
    await world.until(stopped)
    await world.harness.call(START, REF)
    vm = await world.until(running)
    assert world.host().domains[vm.meta.id].running.memory_mib == 256
    assert vm.status.condition("HardwareCurrent").status == "true"
    assert (await world.node()).status.used_memory_mib == 256


async def test_a_drain_stops_guests_and_their_wish_stays(world: Any) -> None:
    for name in ("web", "db"):
        await world.create(name)
    for name in ("web", "db"):
        await world.until(running, name)
    answer = await world.harness.call(DRAIN, DrainRequest(grace_s=5), node="n1")
    assert (answer.stopped, answer.forced) == (2, 0)
    vm = await world.until(lambda v: v.status.power is Power.STOPPED)
    assert vm.spec.power == "running"
    await world.crash()
    await world.start()
    for name in ("web", "db"):
        assert (await world.until(running, name)).status.epoch == 2


async def test_a_vm_whose_disks_have_snapshots_is_not_deleted(world: Any) -> None:
    await world.create()
    await world.until(running)
    asked = CreateRequest[SnapshotSpec](
        meta=NewMeta(name="s", project="p"), spec=SnapshotSpec(volumes=("web-root",))
    )
    await world.harness.call(SNAPSHOTS.create, asked)
    with pytest.raises(Refused) as refused:
        await world.harness.call(VMS.delete, DeleteRequest(project="p", name="web"))
    assert refused.value.code is IN_USE
    assert "trivet snapshot delete s" in (refused.value.hint or "")
