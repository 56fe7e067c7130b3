"""How a node's agent does what a plan says: one method an action.

Whatever is written into the VM is written by compare-and-swap over a fresh read, and whatever
a start depends on is checked again in that very write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from trivet.compute.domain import actions as do
from trivet.compute.domain import vm_status
from trivet.compute.domain.capacity import covers
from trivet.compute.domain.node_plan import restart_delay_s
from trivet.compute.domain.vm_parts import holder_of
from trivet.compute.domain.vm_plan import NODE
from trivet.contracts.compute.hypervisor import Act, DomainDisk, DomainNic, DomainSpec, Hypervisor
from trivet.contracts.compute.node import Node, Promise
from trivet.contracts.compute.vm import Power, Vm, VmDisk, VmNic, WantedPower
from trivet.contracts.endpoint import GetRequest
from trivet.contracts.errors import CONFLICT, NOT_FOUND, Refused, TrivetError
from trivet.contracts.model import NodeName
from trivet.contracts.network.endpoints.ports import CRUD as PORTS
from trivet.contracts.network.port import Port
from trivet.contracts.resource import Condition, Phase
from trivet.contracts.storage.endpoints.volume_attach import ENDPOINT as ATTACH
from trivet.contracts.storage.endpoints.volume_attach import AttachRequest
from trivet.contracts.storage.endpoints.volume_detach import ENDPOINT as DETACH
from trivet.contracts.storage.endpoints.volume_detach import DetachRequest
from trivet.contracts.storage.volume import Attachment
from trivet.runtime.collection import Collection
from trivet.runtime.service import Runtime

STEADY_S = 120.0
SERIAL_LENGTH = 20


@dataclass
class Memory:
    """What the agent remembers of a VM between looks; losing it costs time, never safety."""

    detached: bool = False
    asked_at: datetime | None = None
    resumed_at: datetime | None = None
    booted_at: datetime | None = None
    restart_at: datetime | None = None
    crashes: int = 0
    forced: bool = False


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
        self._nodes = nodes
        self._hypervisor = hypervisor

    async def apply(
        self, vm: Vm, action: do.Action, memory: Memory, prepared: do.Preparation | None
    ) -> do.Preparation | None:
        """Do `action` for `vm`; returns what is prepared for a start from now on."""
        match action:
            case do.Prepare():
                return await self._prepare(vm, memory)
            case do.Boot(epoch):
                assert prepared is not None
                await self._boot(vm, epoch, prepared, memory)
                return None
            case do.Detach():
                await self._detach(vm)
                memory.detached = True
            case do.Undefine():
                await self._hypervisor.undefine(vm.meta.id)
            case do.AskShutdown() | do.CutPower() | do.Suspend() | do.Resume():
                await self._act(vm, action, memory)
            case _:
                await self._write(vm, action, memory)
        return prepared

    # --- on the machine -------------------------------------------------------------------

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
                act, memory.resumed_at = Act.RESUME, now
        try:
            await self._hypervisor.act(vm.meta.id, act)
        except Refused as error:
            # Gone since the look: the next one sees that, and a new plan is made for it.
            if error.code is not NOT_FOUND:
                raise

    async def _prepare(self, vm: Vm, memory: Memory) -> do.Preparation:
        memory.detached = False
        disks, nics = await asyncio.gather(
            asyncio.gather(*(self._attach(vm, disk) for disk in vm.status.disks)),
            asyncio.gather(*(self._port(vm, nic) for nic in vm.status.nics)),
        )
        missing = [answer for answer in (*disks, *nics) if isinstance(answer, str)]
        missing += await self._unpromised(vm)
        if missing:
            return do.Preparation(missing=tuple(missing))
        attached = [a for a in disks if isinstance(a, Attachment)]
        ports = [p for p in nics if isinstance(p, Port)]
        return do.Preparation(
            disks=tuple(
                _domain_disk(d, a, i)
                for i, (d, a) in enumerate(zip(vm.status.disks, attached, strict=True))
            ),
            nics=tuple(_domain_nic(p) for p in ports),
            disk_epochs=tuple(a.epoch for a in attached),
            addresses=tuple(p.status.addresses for p in ports),
        )

    async def _attach(self, vm: Vm, disk: VmDisk) -> Attachment | str:
        """The disk's attachment here, or why there is none."""
        try:
            attachment = await self._runtime.client.call(
                ATTACH,
                AttachRequest(
                    project=vm.meta.project,
                    name=disk.volume,
                    holder=holder_of(vm),
                    node=NodeName(self._runtime.node),
                ),
            )
        except TrivetError as error:
            return f"disk {disk.name}: {error.detail}"
        if attachment.socket is None or attachment.export is None:
            return f"disk {disk.name}: its attachment has no socket yet"
        return attachment

    async def _port(self, vm: Vm, nic: VmNic) -> Port | str:
        """The card's port, plugged here and protected, or why it is not."""
        request = GetRequest(project=vm.meta.project, name=nic.port)
        try:
            port: Port = await self._runtime.client.call(PORTS.get, request)
        except TrivetError as error:
            return f"port {nic.port}: {error.detail}"
        if port.status.phase is not Phase.READY or port.status.node != self._runtime.node:
            said = [c.message for c in port.status.conditions if c.status != "true" and c.message]
            return f"port {nic.port}: {said[0] if said else f'is {port.status.phase}'}"
        if port.status.device is None or port.status.mac is None:
            return f"port {nic.port}: has no device yet"
        return port

    async def _unpromised(self, vm: Vm) -> list[str]:
        """Why the node may not start the VM: it has not promised what is asked."""
        need = Promise(vcpus=vm.spec.vcpus, memory_mib=vm.spec.memory_mib)
        key = self._nodes.kind.key(None, self._runtime.node)
        for node in (self._nodes.by_key(key), await self._nodes.fresh(key)):
            if node is not None and covers(node.status.promises.get(vm.meta.id), need):
                return []
        told = vm.status.condition("Scheduled")
        why = f": {told.message}" if told and told.status == "false" else " yet"
        return [f"{need.memory_mib} MiB, {need.vcpus} vcpus are not promised{why}"]

    async def _boot(self, vm: Vm, epoch: int, prepared: do.Preparation, memory: Memory) -> None:
        disks = tuple(
            d.model_copy(update={"attached": True, "epoch": e})
            for d, e in zip(vm.status.disks, prepared.disk_epochs, strict=True)
        )

        def begin(current: Vm) -> Vm:
            same = current.status.epoch == epoch - 1 and current.spec == vm.spec
            if not same or current.meta.deleting_at or current.status.node != self._runtime.node:
                raise Refused(CONFLICT, f"{vm.meta.name} changed while it was about to start")
            return vm_status.booting(current, epoch, disks, prepared.addresses)

        begun = await self._vms.mutate(self._vms.key_of(vm), begin)
        if begun is None:
            return
        memory.booted_at = self._runtime.clock.now()
        await self._hypervisor.define(_domain(begun, prepared))
        await self._hypervisor.act(vm.meta.id, Act.START)

    async def _detach(self, vm: Vm) -> None:
        await asyncio.gather(*(self._detach_one(vm, disk) for disk in vm.status.disks))

    async def _detach_one(self, vm: Vm, disk: VmDisk) -> None:
        request = DetachRequest(project=vm.meta.project, name=disk.volume, holder=holder_of(vm))
        try:
            await self._runtime.client.call(DETACH, request)
        except Refused as error:
            if error.code is not NOT_FOUND:
                raise

    # --- in the store ---------------------------------------------------------------------

    async def _write(self, vm: Vm, action: do.Action, memory: Memory) -> None:
        now = self._runtime.clock.now()
        change: Callable[[Vm], Vm]
        match action:
            case do.Record(power, reason, ready):
                self._count_crash(vm, power, reason, memory, now)
                change = self._seen(power, reason, ready, now)
            case do.RecordPowerOff(reason, message):
                change = self._powered_off(vm, reason, message, now)
            case do.MarkUnknown(reason):
                message = f"the hypervisor does not answer: {reason}"
                change = lambda v: vm_status.lost(v, message, now)  # noqa: E731
            case do.AdoptEpoch(epoch, active):
                change = lambda v: _adopted(v, epoch, active)  # noqa: E731
            case do.SetStopBy(grace_s):
                by = now + timedelta(seconds=grace_s)
                change = lambda v: v if v.status.stop_by else v.with_status(stop_by=by)  # noqa: E731
            case do.ForgetStop():
                change = lambda v: v.with_status(stop_by=None)  # noqa: E731
            case do.LetGo():
                change = _let_go
            case do.Wait(message):
                told = Condition(type="Progress", status="false", reason="Waits", message=message)
                change = lambda v: vm_status.tell(v, told, now)  # noqa: E731
            case _:
                raise AssertionError(f"no such action: {action}")
        await self._vms.mutate(self._vms.key_of(vm), change)

    async def tell_failure(self, vm: Vm, error: TrivetError) -> None:
        """Show in the VM why the agent gets no further."""
        now = self._runtime.clock.now()
        told = Condition(type="Progress", status="false", reason="Failed", message=error.detail)
        await self._vms.mutate(self._vms.key_of(vm), lambda v: vm_status.tell(v, told, now))

    def _seen(self, power: Power, reason: str, ready: bool, now: datetime) -> Callable[[Vm], Vm]:
        node = self._nodes.get(self._runtime.node)
        inventory = node.status.inventory if node else None
        accel = inventory.accel.value if inventory else None
        done = Condition(type="Progress", status="true", reason="Done")

        def change(vm: Vm) -> Vm:
            seen = vm_status.as_seen(vm, power, reason, ready, now, accel=accel)
            return vm_status.tell(seen, done, now)

        return change

    def _powered_off(self, vm: Vm, reason: str, message: str, now: datetime) -> Callable[[Vm], Vm]:
        told = Condition(type="Running", status="false", reason=reason, message=message)

        def change(current: Vm) -> Vm:
            if current.status.epoch != vm.status.epoch or current.spec != vm.spec:
                raise Refused(CONFLICT, f"{vm.meta.name} changed while it went off")
            spec = current.spec.model_copy(update={"power": WantedPower.STOPPED})
            off = vm_status.as_seen(current.with_spec(spec), Power.STOPPED, "shutdown", False, now)
            return vm_status.tell(off, told, now)

        return change

    def _count_crash(
        self, vm: Vm, power: Power, reason: str, memory: Memory, now: datetime
    ) -> None:
        """Let a VM that ends soon after its start, again and again, wait before the next."""
        if power is not Power.STOPPED:
            return
        if reason == "shutdown" or vm.status.runs_with is None:
            memory.crashes, memory.restart_at = 0, None
            return
        lived = (now - memory.booted_at).total_seconds() if memory.booted_at else STEADY_S
        memory.crashes = memory.crashes + 1 if lived < STEADY_S else 1
        memory.restart_at = now + timedelta(seconds=restart_delay_s(memory.crashes))


def _adopted(vm: Vm, epoch: int, active: bool) -> Vm:
    runs_with = vm.spec.hardware if active else None
    return vm.with_status(epoch=max(epoch, vm.status.epoch), runs_with=runs_with)


def _let_go(vm: Vm) -> Vm:
    finalizers = tuple(f for f in vm.meta.finalizers if f != NODE)
    gone = vm.with_status(power=Power.STOPPED, runs_with=None, guest_ready=False, stop_by=None)
    return gone.with_meta(finalizers=finalizers)


def _domain_disk(disk: VmDisk, attachment: Attachment, index: int) -> DomainDisk:
    assert attachment.socket is not None
    assert attachment.export is not None
    return DomainDisk(
        name=disk.name,
        socket=attachment.socket,
        export=attachment.export,
        serial=disk.name[:SERIAL_LENGTH],
        boot_order=index + 1,
    )


def _domain_nic(port: Port) -> DomainNic:
    assert port.status.device is not None
    assert port.status.mac is not None
    return DomainNic(device=port.status.device, mac=port.status.mac, mtu=port.status.mtu or 1450)


def _domain(vm: Vm, prepared: do.Preparation) -> DomainSpec:
    return DomainSpec(
        id=vm.meta.id,
        name=vm.meta.name,
        project=vm.meta.project or "",
        generation=vm.meta.generation,
        epoch=vm.status.epoch,
        vcpus=vm.spec.vcpus,
        memory_mib=vm.spec.memory_mib,
        firmware=vm.spec.firmware,
        cpu=vm.spec.cpu,
        disks=prepared.disks,
        nics=prepared.nics,
    )
