"""Disks and cards that come and go while a VM runs, is off, or while compute is killed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trivet.compute.node import vm_effects
from trivet.contracts.compute.codes import BOOT_DISK
from trivet.contracts.compute.endpoints.vm_attach_disk import ENDPOINT as ATTACH_DISK
from trivet.contracts.compute.endpoints.vm_attach_disk import AttachDiskRequest
from trivet.contracts.compute.endpoints.vm_attach_nic import ENDPOINT as ATTACH_NIC
from trivet.contracts.compute.endpoints.vm_attach_nic import AttachNicRequest
from trivet.contracts.compute.endpoints.vm_detach_disk import ENDPOINT as DETACH_DISK
from trivet.contracts.compute.endpoints.vm_detach_disk import DetachDiskRequest
from trivet.contracts.compute.endpoints.vm_detach_nic import ENDPOINT as DETACH_NIC
from trivet.contracts.compute.endpoints.vm_detach_nic import DetachNicRequest
from trivet.contracts.compute.endpoints.vm_start import ENDPOINT as START
from trivet.contracts.compute.endpoints.vm_stop import ENDPOINT as STOP
from trivet.contracts.compute.endpoints.vm_stop import StopRequest
from trivet.contracts.compute.endpoints.vms import CRUD as VMS
from trivet.contracts.compute.vm import Power, Vm
from trivet.contracts.endpoint import DeleteRequest, Ref
from trivet.contracts.errors import IMMUTABLE, INVALID, NAME_TAKEN, REFERENCE, Refused
from trivet.contracts.network.port import PortQos, Rate
from trivet.contracts.resource import Phase
from trivet.contracts.storage.codes import NO_SPACE, SHRINK
from trivet.testing.fakes.hypervisor import FakeHypervisor

REF = Ref(project="p", name="web")
ROOT = {"name": "root", "size_gib": 1}
DATA = {"name": "data", "size_gib": 2}


def ready(vm: Vm) -> bool:
    return vm.status.power is Power.RUNNING and vm.status.guest_ready


def applied(vm: Vm) -> bool:
    told = vm.status.condition("HardwareCurrent")
    return vm.settled() and told is not None and told.status == "true"


def has(world: Any, vm: Vm) -> tuple[list[str], list[str]]:
    running = world.host().domains[vm.meta.id].running
    return [d.name for d in running.disks], [n.device for n in running.nics]


async def test_a_disk_comes_and_goes_while_the_guest_runs(world: Any) -> None:
    await world.create()
    await world.until(ready)
    await world.edit(disks=[ROOT, DATA])
    vm = await world.until(applied)
    assert has(world, vm) == (["root", "data"], ["tvp1"])
    assert [(d.name, d.attached, d.epoch) for d in vm.status.disks] == [
        ("root", True, 1),
        ("data", True, 1),
    ]
    assert vm.status.epoch == 1
    held = world.volumes.things["web-data"]
    assert (held.spec.size_gib, held.status.attachment.holder) == (2, f"vm/{vm.meta.id}")

    await world.edit(disks=[ROOT])
    vm = await world.until(lambda v: applied(v) and len(v.status.disks) == 1)
    assert has(world, vm)[0] == ["root"]
    await world.eventually(lambda: "web-data" not in world.volumes.things)


async def test_a_card_comes_and_goes_while_the_guest_runs(world: Any) -> None:
    await world.create()
    vm = await world.until(ready)
    assert [n.name for n in vm.spec.nics] == ["0"]
    await world.harness.call(
        ATTACH_NIC, AttachNicRequest(project="p", name="web", network="lan", nic="dmz")
    )
    vm = await world.until(applied)
    assert has(world, vm)[1] == ["tvp1", "tvp2"]
    assert vm.status.addresses == ("10.0.0.2", "10.0.0.3")
    assert world.ports.created == ["web-0", "web-dmz"]
    await world.harness.call(DETACH_NIC, DetachNicRequest(project="p", name="web", nic="0"))
    vm = await world.until(lambda v: applied(v) and len(v.status.nics) == 1)
    assert has(world, vm)[1] == ["tvp2"]
    assert [n.port for n in vm.status.nics] == ["web-dmz"]
    assert vm.status.addresses == ("10.0.0.3",)
    await world.eventually(lambda: list(world.ports.things) == ["web-dmz"])


async def test_cards_without_names_are_known_again(world: Any) -> None:
    await world.create()
    await world.until(ready)
    before = await world.until(applied)
    same = await world.edit(nics=[{"network": "lan"}])
    assert same.meta.generation == before.meta.generation
    two = await world.edit(nics=[{"network": "lan"}, {"network": "lan"}])
    assert [n.name for n in two.spec.nics] == ["0", "1"]


async def test_the_verbs_may_be_repeated_and_say_what_can_not_be(world: Any) -> None:
    await world.create()
    await world.until(ready)
    more = AttachDiskRequest(project="p", name="web", disk="data", size_gib=2)
    for _ in range(2):
        await world.harness.call(ATTACH_DISK, more)
    await world.until(applied)
    with pytest.raises(Refused) as refused:
        await world.harness.call(ATTACH_DISK, more.model_copy(update={"size_gib": 3}))
    assert refused.value.code is NAME_TAKEN
    gone = DetachDiskRequest(project="p", name="web", disk="data")
    with pytest.raises(Refused, match="volume web-data is deleted with its disk") as refused:
        await world.harness.call(DETACH_DISK, gone)
    assert refused.value.code is INVALID
    for _ in range(2):
        await world.harness.call(DETACH_DISK, gone.model_copy(update={"delete": True}))
    await world.until(lambda v: applied(v) and len(v.status.disks) == 1)
    root = DetachDiskRequest(project="p", name="web", disk="root", delete=True)
    with pytest.raises(Refused) as refused:
        await world.harness.call(DETACH_DISK, root)
    assert refused.value.code is BOOT_DISK
    card = AttachNicRequest(project="p", name="web", network="wan")
    with pytest.raises(Refused) as refused:
        await world.harness.call(ATTACH_NIC, card)
    assert refused.value.code is REFERENCE


@pytest.mark.parametrize(
    ("patch", "code"),
    [
        ({"disks": []}, BOOT_DISK),
        ({"disks": [DATA, ROOT]}, BOOT_DISK),
        ({"disks": [{**ROOT, "replicas": 2}]}, IMMUTABLE),
        ({"disks": [ROOT, {**DATA, "size_gib": 1}]}, SHRINK),
        ({"nics": [{"network": "lan", "name": "0", "address": "10.0.0.9"}]}, IMMUTABLE),
    ],
)
async def test_what_can_not_change(world: Any, patch: dict[str, Any], code: object) -> None:
    await world.create(power="stopped", disks=[ROOT, DATA])
    with pytest.raises(Refused) as refused:
        await world.edit(**patch)
    assert refused.value.code is code


async def test_bounds_of_a_card_are_its_ports(world: Any) -> None:
    """As asked for with the card, changed while it runs; left out, the port keeps its own."""
    slow, fast = (PortQos(egress=Rate(bytes_per_s=n)) for n in (10_000, 10_000_000))
    world.groups.things["strict"] = world.groups.things["default"]
    await world.create()
    (card,) = (await world.until(ready)).status.nics
    for qos in (slow, fast, PortQos()):
        asked = {"network": "lan", "name": "0", "qos": qos.model_dump(mode="json")}
        await world.edit(nics=[asked])
        await world.until(lambda v, qos=qos: v.status.nics[0].qos == qos)
        assert world.ports.things[card.port].spec.qos == qos
    port = world.ports.things[card.port]
    changed = port.with_spec(port.spec.model_copy(update={"qos": slow}))
    world.ports.things[card.port] = changed
    await world.edit(nics=[{"network": "lan", "name": "0", "security_groups": ["strict"]}])
    await world.until(lambda v: v.status.nics[0].security_groups == ("strict",))
    assert world.ports.things[card.port].spec.qos == slow


async def test_security_groups_change_at_the_port(world: Any) -> None:
    world.groups.things["strict"] = world.groups.things["default"]
    await world.create()
    await world.until(ready)
    await world.edit(nics=[{"network": "lan", "name": "0", "security_groups": ["strict"]}])
    await world.until(lambda v: v.status.nics[0].security_groups == ("strict",))
    assert world.ports.things["web-0"].spec.security_groups == ("strict",)


async def test_a_guest_that_keeps_a_device_is_asked_again_and_told_of(world: Any) -> None:
    await world.create(disks=[ROOT, DATA])
    vm = await world.until(ready)
    for driver in world.host().drivers:
        driver.config = driver.config.model_copy(update={"keeps_devices": True})
    await world.edit(disks=[ROOT])
    vm = await world.until(lambda v: v.status.condition("HardwareCurrent").reason == "Applying")
    assert vm.status.condition("HardwareCurrent").message == "now: disk data is to go"
    assert not vm.settled()
    assert "web-data" in world.volumes.things
    # Off, it has it no more, and the disk goes.
    await world.harness.call(STOP, StopRequest(project="p", name="web", force=True))
    await world.until(lambda v: applied(v) and len(v.status.disks) == 1)
    assert "web-data" not in world.volumes.things


async def test_disks_change_while_the_vm_is_off(world: Any) -> None:
    await world.create(power="stopped", disks=[ROOT, DATA])
    await world.until(lambda v: v.settled())
    await world.edit(disks=[ROOT, {"name": "logs", "size_gib": 1}])
    vm = await world.until(lambda v: applied(v) and len(v.status.disks) == 2)
    assert sorted(world.volumes.things) == ["web-logs", "web-root"]
    await world.harness.call(START, REF)
    vm = await world.until(ready)
    assert has(world, vm)[0] == ["root", "logs"]


async def test_a_disk_asked_for_again_before_it_went_is_kept(world: Any) -> None:
    await world.create(disks=[ROOT, DATA])
    await world.until(ready)
    await world.edit(disks=[ROOT])
    await world.edit(disks=[ROOT, DATA])
    vm = await world.until(applied)
    assert has(world, vm)[0] == ["root", "data"]
    assert all(d.attached and not d.released for d in vm.status.disks)


async def test_a_disk_without_room_is_told_and_the_rest_goes_on(world: Any) -> None:
    await world.create()
    await world.until(ready)
    world.volumes.refuse = Refused(NO_SPACE, "pool a has 0 GiB free", hint="add a disk")
    await world.edit(disks=[ROOT, DATA], nics=[{"network": "lan"}, {"network": "lan"}])
    vm = await world.until(lambda v: sum(n.plugged for n in v.status.nics) == 2)
    vm = await world.until(lambda v: v.status.condition("PartsReady").status == "false")
    told = vm.status.condition("PartsReady")
    assert told.message == "volume web-data: pool a has 0 GiB free (add a disk)"
    assert vm.status.phase is Phase.READY
    world.volumes.refuse = None
    await world.edit(disks=[ROOT])
    vm = await world.until(applied)
    assert vm.status.condition("PartsReady").status == "true"


@pytest.mark.parametrize("act", ["plug", "unplug"])
@pytest.mark.parametrize("done", [False, True])
async def test_compute_killed_in_the_middle_of_it_goes_on(
    world: Any, act: str, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks = [ROOT] if act == "plug" else [ROOT, DATA]
    wanted = [ROOT, DATA] if act == "plug" else [ROOT]
    await world.create(disks=disks)
    await world.until(ready)
    real, reached = getattr(FakeHypervisor, act), asyncio.Event()

    async def hang(self: Any, *args: Any) -> None:
        if done:
            await real(self, *args)
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(FakeHypervisor, act, hang)
    await world.edit(disks=wanted)
    await asyncio.wait_for(reached.wait(), 60)
    await world.crash()
    monkeypatch.setattr(FakeHypervisor, act, real)
    await world.start()
    vm = await world.until(lambda v: applied(v) and len(v.status.disks) == len(wanted))
    assert has(world, vm)[0] == [d["name"] for d in wanted]
    assert vm.status.epoch == 1, "the guest ran on"
    assert sorted(world.volumes.things) == [f"web-{n}" for n in sorted(d["name"] for d in wanted)]
    assert world.volumes.created == ["web-root", "web-data"]


@pytest.mark.parametrize("moment", range(8))
async def test_compute_killed_anywhere_in_a_change_converges(world: Any, moment: int) -> None:
    await world.create(disks=[ROOT, {"name": "old", "size_gib": 1}])
    await world.until(ready)
    await world.edit(disks=[ROOT, DATA], nics=[{"network": "lan"}, {"network": "lan"}])
    for _ in range(moment * 6):
        await asyncio.sleep(0)
    await world.crash()
    await world.start()
    vm = await world.until(lambda v: applied(v) and len(v.status.disks) == 2)
    assert has(world, vm) == (["root", "data"], ["tvp1", "tvp2"])
    assert sorted(world.volumes.things) == ["web-data", "web-root"]
    assert vm.status.epoch == 1


async def test_processors_and_memory_come_while_the_guest_runs(world: Any) -> None:
    await world.create(max_vcpus=4, max_memory_mib=1024)
    await world.until(ready)
    await world.edit(vcpus=3, memory_mib=256)
    vm = await world.until(applied)
    running = world.host().domains[vm.meta.id].running
    assert (running.vcpus, running.memory_mib) == (3, 256)
    assert (vm.status.runs_with.vcpus, vm.status.runs_with.memory_mib) == (3, 256)
    assert (await world.node()).status.used_memory_mib == 256
    # Less, and what its domain was not made for, waits; and what waits is named.
    await world.edit(vcpus=2, memory_mib=300)
    vm = await world.until(lambda v: v.settled() and not applied(v))
    told = vm.status.condition("HardwareCurrent")
    assert told.reason == "NextStart"
    assert told.message == "at its next start: 2 vcpus (has 3), 300 MiB of memory (has 256)"
    assert world.host().domains[vm.meta.id].running.vcpus == 3
    assert (await world.node()).status.used_vcpus == 3


async def test_memory_that_is_not_promised_does_not_come(world: Any) -> None:
    await world.create("big", memory_mib=14000)
    await world.until(ready, "big")
    await world.create(max_memory_mib=4096)
    await world.until(ready)
    await world.edit(memory_mib=128 + 2048)
    vm = await world.until(lambda v: "not promised" in v.status.condition("Progress").message)
    assert world.host().domains[vm.meta.id].running.memory_mib == 128
    assert vm.status.condition("Scheduled").reason == "NoRoom"
    await world.harness.call(VMS.delete, DeleteRequest(project="p", name="big"))
    await world.until(applied)
    assert world.host().domains[vm.meta.id].running.memory_mib == 2176


class NotPlugging:
    """What no hypervisor is."""


async def test_a_hypervisor_that_can_not_plug_leaves_it_to_the_next_start(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.crash()
    monkeypatch.setattr(vm_effects, "HotPlug", NotPlugging)
    await world.start()
    await world.create()
    await world.until(ready)
    await world.edit(disks=[ROOT, DATA])
    vm = await world.until(lambda v: v.settled() and len(v.status.disks) == 2)
    told = vm.status.condition("HardwareCurrent")
    assert (told.reason, told.message) == (
        "NextStart",
        "at its next start: disk data is to come",
    )
    await world.harness.call(STOP, StopRequest(project="p", name="web", force=True))
    await world.until(lambda v: v.status.power is Power.STOPPED and applied(v))
    await world.harness.call(START, REF)
    vm = await world.until(lambda v: ready(v) and applied(v))
    assert has(world, vm)[0] == ["root", "data"]


async def test_a_disk_grows_while_the_guest_runs(world: Any) -> None:
    await world.create()
    await world.until(ready)
    world.served_gib["web-root"] = 1
    await world.edit(disks=[{**ROOT, "size_gib": 3}])
    vm = await world.until(lambda v: "served with" in v.status.condition("Progress").message)
    assert vm.status.condition("HardwareCurrent").message == "now: disk root of 3 GiB (has 1)"
    assert not vm.settled()
    assert world.host().domains[vm.meta.id].shown == {}
    assert world.volumes.things["web-root"].spec.size_gib == 3
    del world.served_gib["web-root"]
    vm = await world.until(applied)
    assert world.host().domains[vm.meta.id].shown == {"root": 3 << 30}
    assert (vm.status.disks[0].size_gib, vm.status.disks[0].guest_gib) == (3, 3)
    assert vm.status.epoch == 1


async def test_growth_that_is_refused_is_told(world: Any) -> None:
    await world.create()
    await world.until(ready)
    world.volumes.refuse_edit = Refused(NO_SPACE, "pool a has 0 GiB free", hint="add a disk")
    await world.edit(disks=[{**ROOT, "size_gib": 3}])
    vm = await world.until(lambda v: v.status.condition("PartsReady").status == "false")
    told = vm.status.condition("PartsReady").message
    assert told == "volume web-root: pool a has 0 GiB free (add a disk)"
    assert vm.status.phase is Phase.READY
