"""How a node's agent does what a plan says: on the machine, through the drivers' services.

What is only written into the store is in `records`. What is begun here is on record before it
is begun, and whatever a start depends on is checked again in that very write.
"""

from __future__ import annotations

from trivet.compute.domain import actions as do
from trivet.compute.domain import vm_status
from trivet.compute.domain.capacity import asked_by, covers
from trivet.compute.domain.cpu_tuning import tuning_of
from trivet.compute.domain.hardware import disks_to_have
from trivet.compute.node.devices import SOON_S, Devices
from trivet.compute.node.records import Memory, Records
from trivet.compute.node.seeds import Seeds
from trivet.contracts.compute.cpu_control import CpuControl
from trivet.contracts.compute.hot_plug import HotPlug
from trivet.contracts.compute.hypervisor import Act, DomainSpec, DomainTuning, Hypervisor
from trivet.contracts.compute.node import Node
from trivet.contracts.compute.vm import Vm
from trivet.contracts.errors import CONFLICT, NOT_FOUND, UNAVAILABLE, Refused, Retry
from trivet.contracts.model import GIB
from trivet.runtime.collection import Collection
from trivet.runtime.service import Runtime


class VmEffects:
    """Applies actions on this node."""

    def __init__(
        self,
        runtime: Runtime,
        vms: Collection[Vm],
        nodes: Collection[Node],
        hypervisor: Hypervisor,
    ) -> None:
        self._runtime = runtime
        self._vms = vms
        self._hypervisor = hypervisor
        self.can_plug = isinstance(hypervisor, HotPlug)
        """Whether the hypervisor changes the hardware of running guests."""
        self._can_tune = isinstance(hypervisor, CpuControl)
        self._devices = Devices(runtime, nodes)
        self._seeds = Seeds(runtime.client, hypervisor)
        self.records = Records(runtime, vms, nodes)

    def tuning(self, vm: Vm) -> DomainTuning | None:
        """How a running guest should get its processors; None: that is not to be changed now,
        since its node is not known, has not promised what is asked, or can't change it."""
        node = self._devices.node
        if node is None or not self._can_tune:
            return None
        promised = covers(node.status.promises.get(vm.meta.id), asked_by(vm.spec))
        return tuning_of(vm, node) if promised else None

    async def apply(
        self, vm: Vm, action: do.Action, memory: Memory, prepared: do.Preparation | None
    ) -> do.Preparation | None:
        """Do `action` for `vm`; returns what is prepared for a start from now on."""
        match action:
            case do.Prepare():
                memory.detached = False
                return await self._devices.prepare(vm)
            case do.Boot(epoch):
                assert prepared is not None
                await self._boot(vm, epoch, prepared)
                return None
            case do.Detach():
                await self._devices.detach(vm, vm.status.disks)
                memory.detached = True
            case do.Undefine():
                await self._hypervisor.undefine(vm.meta.id)
            case do.AskShutdown() | do.CutPower() | do.Suspend() | do.Resume():
                await self._act(vm, action, memory)
            case do.PlugDisk() | do.PlugNic() | do.Unplug() | do.Scale() | do.ShowSize():
                await self._change(vm, action, memory)
            case do.Tune(tuning):
                assert isinstance(self._hypervisor, CpuControl)
                await self._hypervisor.tune(vm.meta.id, tuning)
            case do.Release(names):
                gone = [d for d in vm.status.disks if d.name in names]
                await self._devices.detach(vm, gone)
                await self.records.released(vm, names)
            case _:
                await self.records.write(vm, action)
        return prepared

    async def _act(self, vm: Vm, action: do.Action, memory: Memory) -> None:
        now = self._runtime.clock.now()
        match action:
            case do.AskShutdown():
                act, memory.asked_at = Act.SHUTDOWN, now
            case do.CutPower():
                act, memory.forced = Act.DESTROY, True
            case do.Suspend():
                act = Act.SUSPEND
            case _:
                act = Act.RESUME
                memory.resumes = vm_status.resumes_in_a_row(memory.resumes, memory.resumed_at, now)
                memory.resumed_at = now
        try:
            await self._hypervisor.act(vm.meta.id, act)
        except Refused as error:
            # Gone since the look: the next one sees that, and a new plan is made for it.
            if error.code is not NOT_FOUND:
                raise

    async def _boot(self, vm: Vm, epoch: int, prepared: do.Preparation) -> None:
        now = self._runtime.clock.now()

        def begin(current: Vm) -> Vm:
            same = current.status.epoch == epoch - 1 and current.spec == vm.spec
            if not same or current.meta.deleting_at or current.status.node != self._runtime.node:
                raise Refused(CONFLICT, f"{vm.meta.name} changed while it was about to start")
            return vm_status.booting(current, epoch, prepared.vm_disks, prepared.vm_nics, now)

        seed = await self._seeds.put(vm, prepared.vm_nics)
        begun = await self._vms.mutate(self._vms.key_of(vm), begin)
        if begun is None:
            return
        node = self._devices.node
        tuning = tuning_of(begun, node) if node is not None else DomainTuning()
        await self._hypervisor.define(_domain(begun, prepared, seed, tuning))
        await self._hypervisor.act(vm.meta.id, Act.START)

    # --- in the running guest -------------------------------------------------------------

    async def _change(self, vm: Vm, action: do.Action, memory: Memory) -> None:
        assert isinstance(self._hypervisor, HotPlug)
        match action:
            case do.Unplug(device):
                memory.asked_off[device] = self._runtime.clock.now()
                await self._hypervisor.unplug(vm.meta.id, device)
            case do.Scale(vcpus, memory_mib):
                if missing := await self._devices.unpromised(vm):
                    raise Retry(UNAVAILABLE, missing[0], retry_after_s=SOON_S)
                await self._hypervisor.scale(vm.meta.id, vcpus, memory_mib)
            case do.ShowSize(name):
                await self._show_size(vm, name, self._hypervisor)
            case do.PlugDisk(name):
                disk = next(d for d in disks_to_have(vm) if d.name == name)
                memory.asked_off.pop(name, None)
                given, shown = await self._devices.disk(vm, disk)
                if await self.records.replace(vm, disk=shown):
                    await self._hypervisor.plug(vm.meta.id, given)
            case do.PlugNic(port):
                nic = next(n for n in vm.status.nics if n.port == port)
                card, seen = await self._devices.nic(vm, nic)
                memory.asked_off.pop(card.mac, None)
                if await self.records.replace(vm, nic=seen):
                    await self._hypervisor.plug(vm.meta.id, card)

    async def _show_size(self, vm: Vm, name: str, hypervisor: HotPlug) -> None:
        disk = next(d for d in disks_to_have(vm) if d.name == name)
        served_bytes = await self._devices.served_bytes(vm, disk)
        wanted_bytes = disk.size_gib * GIB
        if served_bytes < wanted_bytes:
            detail = f"disk {name} is served with {served_bytes} of {wanted_bytes} bytes so far"
            raise Retry(UNAVAILABLE, detail, retry_after_s=SOON_S)
        await hypervisor.resize(vm.meta.id, name, wanted_bytes)
        shown = disk.model_copy(update={"guest_gib": disk.size_gib})
        await self.records.replace(vm, disk=shown)


def _domain(vm: Vm, prepared: do.Preparation, seed: str | None, tuning: DomainTuning) -> DomainSpec:
    return DomainSpec(
        id=vm.meta.id,
        name=vm.meta.name,
        project=vm.meta.project or "",
        generation=vm.meta.generation,
        epoch=vm.status.epoch,
        vcpus=vm.spec.vcpus,
        memory_mib=vm.spec.memory_mib,
        max_vcpus=vm.spec.max_vcpus,
        max_memory_mib=vm.spec.max_memory_mib,
        firmware=vm.spec.firmware,
        tpm=vm.spec.tpm,
        cpu=tuning,
        disks=prepared.disks,
        nics=prepared.nics,
        seed=seed,
    )
