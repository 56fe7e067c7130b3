"""What goes wrong around a VM: neighbours that are slow or refuse, agents cut in mid-step,
nodes that fall silent, two leaders at once. It converges, makes nothing twice, and says why."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trivet.compute.bootstrap import bootstrap
from trivet.compute.controllers.vm_placement import VmPlacement
from trivet.contracts.compute.endpoints.nodes import CRUD as NODES
from trivet.contracts.compute.endpoints.vm_start import ENDPOINT as START
from trivet.contracts.compute.endpoints.vm_stop import ENDPOINT as STOP
from trivet.contracts.compute.endpoints.vm_stop import StopRequest
from trivet.contracts.compute.endpoints.vms import CRUD as VMS
from trivet.contracts.compute.hypervisor import Act
from trivet.contracts.compute.vm import Power, Vm
from trivet.contracts.endpoint import DeleteRequest, EditRequest, Ref
from trivet.contracts.errors import INVALID, Refused
from trivet.contracts.keys import assignment_key
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Phase
from trivet.contracts.storage.codes import NO_SPACE
from trivet.runtime.lease import Lease
from trivet.testing.fakes.hypervisor import FakeHypervisor

REF = Ref(project="p", name="web")


def running(vm: Vm) -> bool:
    return vm.status.power is Power.RUNNING and vm.status.phase is Phase.READY


def told(vm: Vm, type_: str) -> str:
    condition = vm.status.condition(type_)
    return condition.message if condition else ""


async def test_slow_parts_are_waited_for_and_told(world: Any) -> None:
    world.volume_phase = world.port_phase = Phase.PENDING
    await world.create()
    vm = await world.until(lambda v: v.status.condition("PartsReady") is not None)
    assert told(vm, "PartsReady") == "volume web-root: is pending"
    assert vm.status.phase is Phase.PENDING
    world.settle(world.volumes)
    vm = await world.until(lambda v: told(v, "Progress") == "port web-0: is pending")
    assert vm.status.power is Power.STOPPED
    assert world.attaches, "its disks are attached while the port is being made"
    world.settle(world.ports)
    await world.until(running)
    assert world.volumes.created == ["web-root"]
    assert world.ports.created == ["web-0"]


async def test_a_part_that_is_refused_fails_the_vm_with_the_reason(world: Any) -> None:
    world.volumes.refuse = Refused(NO_SPACE, "pool a has 0 GiB free", hint="add a disk")
    await world.create()
    vm = await world.until(lambda v: v.status.phase is Phase.FAILED)
    assert told(vm, "PartsReady") == "volume web-root: pool a has 0 GiB free (add a disk)"
    assert vm.settled()
    await world.harness.call(VMS.delete, DeleteRequest(project="p", name="web"))
    await world.eventually(world.gone)
    assert not world.ports.things


async def test_a_part_of_somebody_else_is_neither_used_nor_deleted(world: Any) -> None:
    await world.create("other")
    await world.until(running, "other")
    foreign = world.volumes.things["other-root"]
    world.volumes.things["web-root"] = foreign
    await world.create()
    vm = await world.until(lambda v: v.status.phase is Phase.FAILED)
    assert told(vm, "PartsReady") == "volume web-root: the name is taken by another volume"
    await world.harness.call(VMS.delete, DeleteRequest(project="p", name="web"))
    await world.eventually(world.gone)
    assert "web-root" in world.volumes.things


async def test_a_disk_that_can_not_be_attached_is_told_and_tried_again(world: Any) -> None:
    world.attach_error = Refused(INVALID, "no replica is in sync")
    await world.create()
    vm = await world.until(lambda v: "no replica" in told(v, "Progress"))
    assert told(vm, "Progress") == "disk root: no replica is in sync"
    assert vm.status.power is Power.STOPPED
    world.attach_error = None
    await world.until(running)


async def test_a_hypervisor_that_does_not_answer_means_unknown(world: Any) -> None:
    await world.create()
    await world.until(running)
    world.host().away = True
    vm = await world.until(lambda v: v.status.power is Power.UNKNOWN)
    assert vm.status.phase is Phase.UNKNOWN
    assert "does not answer" in told(vm, "Running")
    world.host().come_back()
    vm = await world.until(running)
    assert vm.status.epoch == 1


@pytest.mark.parametrize("step", ["attach", "define", "start", "started"])
async def test_an_agent_cut_in_the_middle_of_a_start_goes_on(
    world: Any, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached, forever = asyncio.Event(), asyncio.Event()
    if step == "attach":
        world.attach_hangs = forever
        await world.create()
        await world.eventually(lambda: world.attaches)
    else:
        define, act = FakeHypervisor.define, FakeHypervisor.act

        async def hang(self: Any, *args: Any) -> None:
            wanted = "define" if len(args) == 1 else "start"
            if len(args) == 2 and args[1] is not Act.START:
                return await act(self, *args)
            if step == "started" and wanted == "start":
                await act(self, *args)
            if step.startswith(wanted):
                reached.set()
                await forever.wait()
            await (define if wanted == "define" else act)(self, *args)
            return None

        monkeypatch.setattr(FakeHypervisor, "define", hang)
        monkeypatch.setattr(FakeHypervisor, "act", hang)
        await world.create()
        await asyncio.wait_for(reached.wait(), 60)
        monkeypatch.setattr(FakeHypervisor, "define", define)
        monkeypatch.setattr(FakeHypervisor, "act", act)
    await world.crash()
    world.attach_hangs = None
    forever.set()
    await world.start()
    vm = await world.until(running)
    assert len(world.host().domains) == 1
    assert world.host().domains[vm.meta.id].running.epoch == vm.status.epoch
    assert world.volumes.created == ["web-root"]
    assert world.ports.created == ["web-0"]
    assert (await world.node()).status.used_memory_mib == 128


@pytest.mark.parametrize("moment", range(6))
async def test_a_service_cut_anywhere_in_a_creation_converges(world: Any, moment: int) -> None:
    await world.create()
    for _ in range(moment * 3):
        await asyncio.sleep(0)
    await world.crash()
    await world.start()
    vm = await world.until(running)
    assert list(world.host().domains) == [vm.meta.id]
    assert world.volumes.created == ["web-root"]
    assert world.ports.created == ["web-0"]
    assert list((await world.node()).status.promises) == [vm.meta.id]


@pytest.mark.parametrize("moment", range(6))
async def test_a_service_cut_anywhere_in_a_deletion_converges(world: Any, moment: int) -> None:
    await world.create()
    await world.until(running)
    await world.harness.call(VMS.delete, DeleteRequest(project="p", name="web"))
    for _ in range(moment * 4):
        await asyncio.sleep(0)
    await world.crash()
    await world.start()
    await world.eventually(world.gone)
    assert not world.host().domains
    assert not world.volumes.things
    assert not world.ports.things
    assert (await world.node()).status.promises == {}


async def test_a_guest_that_went_off_while_the_agent_was_away(world: Any) -> None:
    await world.create()
    vm = await world.until(running)
    await world.crash()
    world.host().power_off(vm.meta.id)
    await world.start()
    await world.until(lambda v: v.spec.power == "stopped" and v.status.power is Power.STOPPED)


async def test_a_stop_cut_in_the_middle_is_not_taken_for_the_guests_own(world: Any) -> None:
    await world.create()
    vm = await world.until(running)
    await world.harness.call(STOP, StopRequest(project="p", name="web", grace_s=60))
    await world.harness.call(START, REF)
    await world.crash()
    world.host().power_off(vm.meta.id)
    await world.start()
    vm = await world.until(lambda v: running(v) and v.status.epoch == 2)
    assert vm.spec.power == "running"


async def test_a_silent_node_makes_its_vms_unknown_and_blocks_their_deletion(world: Any) -> None:
    await world.harness.start("compute", bootstrap, "n2")
    await world.create(placement={"nodes": ["n2"]})
    vm = await world.until(running)
    assert vm.status.node == "n2"
    await world.harness.crash("compute", "n2")
    vm = await world.until(lambda v: v.status.power is Power.UNKNOWN)
    assert vm.status.phase is Phase.UNKNOWN
    assert "n2 is not heard from" in told(vm, "Running")
    assert (await world.node("n2")).status.phase is Phase.UNKNOWN
    await world.harness.call(VMS.delete, DeleteRequest(project="p", name="web"))
    vm = await world.until(lambda v: v.status.condition("Deletable") is not None)
    assert vm.status.condition("Deletable").reason == "NodeUnknown"
    assert "n2 is not heard from and may still run it" in told(vm, "Deletable")
    assert world.volumes.things

    await world.harness.start("compute", bootstrap, "n2")
    await world.eventually(world.gone)
    assert not world.host().domains


async def test_a_new_leader_does_not_take_a_silent_node_for_heard(world: Any) -> None:
    await world.harness.start("compute", bootstrap, "n2")
    await world.harness.crash("compute", "n2")

    async def silent() -> bool:
        return bool((await world.node("n2")).status.phase is Phase.UNKNOWN)

    await world.eventually(silent)
    await world.crash()
    await world.start()
    await world.create()
    await world.until(running)
    controller_looked = asyncio.get_running_loop().time() + 0.7
    while asyncio.get_running_loop().time() < controller_looked:
        assert await silent()
        await asyncio.sleep(0.05)


async def promised(world: Any, **memory_mib: int) -> bool:
    """Whether each node has promised so much."""
    found = {name: (await world.node(name)).status.used_memory_mib for name in memory_mib}
    return found == memory_mib


async def test_a_claim_that_was_cut_leaves_no_room_held(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, claimed = VmPlacement._write, asyncio.Event()

    async def hang(self: VmPlacement, *args: Any) -> None:
        claimed.set()
        await asyncio.Event().wait()

    await world.harness.start("compute", bootstrap, "n2")
    monkeypatch.setattr(VmPlacement, "_write", hang)
    await world.create()
    await asyncio.wait_for(claimed.wait(), 60)
    # Either node may answer, and the copy of one may be a moment behind.
    await world.eventually(lambda: promised(world, n1=128, n2=0))
    await world.crash()
    monkeypatch.setattr(VmPlacement, "_write", write)
    await world.start()
    patch = EditRequest(name="n1", spec={"maintenance": True})
    await world.harness.call(NODES.edit, patch)
    vm = await world.until(running)
    await world.eventually(lambda: promised(world, **{"n1": 0, "n2": 0, vm.status.node: 128}))


async def test_a_silent_node_that_comes_back_tells_its_vms(world: Any) -> None:
    await world.harness.start("compute", bootstrap, "n2")
    await world.create(placement={"nodes": ["n2"]})
    await world.until(running)
    await world.harness.crash("compute", "n2")
    await world.until(lambda v: v.status.power is Power.UNKNOWN)
    await world.harness.start("compute", bootstrap, "n2")
    vm = await world.until(running)
    assert vm.status.epoch == 1


async def test_a_node_that_is_gone_for_good_can_be_deleted_with_its_vms(world: Any) -> None:
    await world.harness.start("compute", bootstrap, "n2")
    await world.create(placement={"nodes": ["n2"]})
    vm = await world.until(running)
    with pytest.raises(Refused):
        await world.harness.call(NODES.delete, DeleteRequest(name="n2"))
    await world.harness.crash("compute", "n2")
    await world.until(lambda v: v.status.power is Power.UNKNOWN)
    for name, volume in world.volumes.things.items():
        world.volumes.things[name] = volume.with_status(attachment=None)
    await world.harness.call(NODES.delete, DeleteRequest(name="n2"))
    await world.harness.call(VMS.delete, DeleteRequest(project="p", name="web"))
    await world.eventually(world.gone)
    assert vm.meta.id in world.host().domains

    # It comes back after all: the store says that its VM was deleted, so the guest ends.
    await world.harness.start("compute", bootstrap, "n2")
    await world.eventually(lambda: not world.host().domains)


async def test_a_domain_that_the_store_does_not_know_is_told_and_left_alone(world: Any) -> None:
    await world.create()
    vm = await world.until(running)
    store = world.harness.store("compute")
    await world.crash()
    for key in (f"vm.p.{vm.meta.name}", f"assign.n1.vm.{vm.meta.id}"):
        entry = await store.get(key)
        await store.delete(key, entry.revision)
    await world.start()

    async def reported() -> bool:
        orphans = (await world.node()).status.condition("Orphans")
        return orphans is not None and orphans.status == "true" and "web" in orphans.message

    await world.eventually(reported)
    assert world.host().domains[vm.meta.id].running is not None


async def test_two_leaders_at_once_do_no_harm(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def both_hold(self: Lease, work: Any) -> None:
        await work()

    monkeypatch.setattr(Lease, "hold", both_hold)
    await world.crash()
    await world.start()
    await world.harness.start("compute", bootstrap, "n2")
    names = [f"v{i}" for i in range(6)]
    await asyncio.gather(*(world.create(name, memory_mib=6000) for name in names[:4]))
    for name in names[:4]:
        await world.until(running, name)
    placed = [(await world.vm(name)).status.node for name in names[:4]]
    assert sorted(placed) == ["n1", "n1", "n2", "n2"]
    assert len(world.volumes.created) == len(set(world.volumes.created)) == 4
    for node in ("n1", "n2"):
        assert (await world.node(node)).status.used_memory_mib == 12000
    for name in names[:4]:
        await world.harness.call(VMS.delete, DeleteRequest(project="p", name=name))
    for name in names[:4]:
        await world.eventually(lambda name=name: world.gone(name))
    for node in ("n1", "n2"):
        assert (await world.node(node)).status.promises == {}


async def test_pointers_to_what_does_not_exist_are_dropped(world: Any) -> None:
    """A store that was put back to an older state may have them."""
    await world.create()
    vm = await world.until(running)
    service = world.harness.service("compute")
    gone = (
        ("vm", "vm-0000000000000001", "vm.p.gone"),
        ("vm", "vm-0000000000000002", "vm.p.web"),
        ("image", "image-0000000000000003", "image.p.gone"),
    )
    for kind, id_, key in gone:
        await service.assignments.assign("n1", kind, ResourceId(id_), key, 1)

    async def dropped() -> bool:
        keys = [assignment_key("n1", kind, ResourceId(id_)) for kind, id_, _ in gone]
        return [await service.runtime.store.get(key) for key in keys] == [None] * len(keys)

    await world.eventually(dropped)
    kept = await service.runtime.store.get(assignment_key("n1", "vm", vm.meta.id))
    assert kept is not None


async def test_a_domain_destroyed_behind_our_back_starts_again_and_is_told(world: Any) -> None:
    await world.create()
    vm = await world.until(running)
    domain = world.host().domains[vm.meta.id]
    domain.end("destroyed")
    world.host().tell(vm.meta.id)
    vm = await world.until(lambda v: running(v) and v.status.epoch == 2)
    assert vm.status.crashes == 1
    assert told(vm, "LastRun").startswith(
        "its power was cut, and Trivet did not do that; ran from "
    )
    assert vm.spec.power == "running"


async def test_a_domain_undefined_behind_our_back_is_made_again(world: Any) -> None:
    await world.create()
    vm = await world.until(running)
    domain = world.host().domains.pop(vm.meta.id)
    domain.end("destroyed")
    await world.until(lambda v: running(v) and v.status.epoch == 2)
    assert list(world.host().domains) == [vm.meta.id]


async def test_the_wait_after_crashes_outlives_the_service(world: Any) -> None:
    await world.create()
    vm = await world.until(running)
    for epoch in (1, 2):
        world.host().crash(vm.meta.id)
        if epoch == 1:
            await world.until(lambda v: running(v) and v.status.epoch == 2)
    vm = await world.until(lambda v: v.status.crashes == 2)
    assert vm.status.power is Power.STOPPED
    await world.crash()
    await world.start()
    vm = await world.until(lambda v: told(v, "Progress").startswith("waits"))
    assert (vm.status.crashes, vm.status.epoch) == (2, 2)
    assert vm.status.restart_at > vm.status.started_at
    await world.until(lambda v: running(v) and v.status.epoch == 3)
