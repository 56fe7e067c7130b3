"""What a node's agent writes into a VM: always by compare-and-swap over a fresh read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from trivet.compute.domain import actions as do
from trivet.compute.domain import vm_status
from trivet.compute.domain.hardware import disks_leaving, nics_leaving
from trivet.compute.domain.vm_plan import NODE
from trivet.contracts.compute.node import Node
from trivet.contracts.compute.vm import Power, Vm, VmDisk, VmNic, WantedPower
from trivet.contracts.errors import CONFLICT, Refused, TrivetError
from trivet.contracts.resource import Condition
from trivet.runtime.clock import Clock
from trivet.runtime.collection import Collection
from trivet.runtime.service import Runtime


@dataclass
class Countdown:
    """Counts down to a time on record, from when it is first seen, by a clock that nobody sets."""

    at: datetime | None = None
    ends: float = 0.0

    def left_s(self, at: datetime | None, clock: Clock, most_s: float) -> float | None:
        """The seconds left until `at`; None: there is no such time. One that is further off than
        `most_s` when it is first seen was written before the clock was set back."""
        if at is not None and at != self.at:
            self.ends = clock.monotonic() + min((at - clock.now()).total_seconds(), most_s)
        self.at = at
        return None if at is None else max(0.0, self.ends - clock.monotonic())


@dataclass
class Memory:
    """What the agent remembers of a VM between looks; losing it costs time, never safety."""

    detached: bool = False
    asked_at: datetime | None = None
    resumed_at: datetime | None = None
    resumes: int = 0
    forced: bool = False
    asked_off: dict[str, datetime] = field(default_factory=dict)
    stop: Countdown = field(default_factory=Countdown)
    restart: Countdown = field(default_factory=Countdown)


class Records:
    """The agent's writes."""

    def __init__(self, runtime: Runtime, vms: Collection[Vm], nodes: Collection[Node]) -> None:
        self._runtime = runtime
        self._vms = vms
        self._nodes = nodes

    async def write(self, vm: Vm, action: do.Action) -> None:
        """Write what `action` says."""
        now = self._runtime.clock.now()
        change: Callable[[Vm], Vm]
        match action:
            case do.Record():
                change = self._seen(action, now)
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
            case do.Wait(message, reason):
                told = Condition(type="Progress", status="false", reason=reason, message=message)
                change = lambda v: vm_status.tell(v, told, now)  # noqa: E731
            case _:
                raise AssertionError(f"no such action: {action}")
        await self._vms.mutate(self._vms.key_of(vm), change)

    async def tell_failure(self, vm: Vm, error: TrivetError) -> None:
        """Show in the VM why the agent gets no further."""
        now = self._runtime.clock.now()
        told = Condition(type="Progress", status="false", reason="Failed", message=error.detail)
        await self._vms.mutate(self._vms.key_of(vm), lambda v: vm_status.tell(v, told, now))

    async def tell_restored(self, vm: Vm) -> None:
        """Show in the VM that somebody else had changed what it starts with."""
        now = self._runtime.clock.now()
        message = f"changed by somebody else, and put back at {now:%Y-%m-%d %H:%M:%S} UTC"
        told = Condition(type="Definition", status="true", reason="Restored", message=message)
        await self._vms.mutate(self._vms.key_of(vm), lambda v: vm_status.tell(v, told, now))

    async def released(self, vm: Vm, names: tuple[str, ...]) -> None:
        """These disks (by name) and cards (by port) are let go of, unless asked for again."""

        def change(current: Vm) -> Vm:
            disks = {d.name for d in disks_leaving(current)} & {*names}
            ports = {n.port for n in nics_leaving(current)} & {*names}
            gone = {"released": True, "attached": False}
            return current.with_status(
                disks=tuple(
                    d.model_copy(update=gone) if d.name in disks else d
                    for d in current.status.disks
                ),
                nics=tuple(
                    n.model_copy(update={"released": True, "plugged": False})
                    if n.port in ports
                    else n
                    for n in current.status.nics
                ),
            )

        await self._vms.mutate(self._vms.key_of(vm), change)

    async def replace(
        self, vm: Vm, *, disk: VmDisk | None = None, nic: VmNic | None = None
    ) -> bool:
        """Show a disk or card as given to the guest, before it is; False where the spec changed
        meanwhile: then it must not be given."""
        fits = False

        def change(current: Vm) -> Vm:
            nonlocal fits
            fits = current.spec == vm.spec and current.status.epoch == vm.status.epoch
            if not fits:
                return current
            disks = (disk if disk and d.name == disk.name else d for d in current.status.disks)
            nics = (nic if nic and n.port == nic.port else n for n in current.status.nics)
            return current.with_status(disks=tuple(disks), nics=tuple(nics))

        await self._vms.mutate(self._vms.key_of(vm), change)
        return fits

    def _seen(self, seen: do.Record, now: datetime) -> Callable[[Vm], Vm]:
        node = self._nodes.get(self._runtime.node)
        inventory = node.status.inventory if node else None
        accel = inventory.accel.value if inventory else None
        done = Condition(type="Progress", status="true", reason="Done")

        def change(vm: Vm) -> Vm:
            return vm_status.tell(vm_status.as_seen(vm, seen, now, accel=accel), done, now)

        return change

    def _powered_off(self, vm: Vm, reason: str, message: str, now: datetime) -> Callable[[Vm], Vm]:
        told = Condition(type="Running", status="false", reason=reason, message=message)
        seen = do.Record(Power.STOPPED, "shutdown", ready=False)

        def change(current: Vm) -> Vm:
            if current.status.epoch != vm.status.epoch or current.spec != vm.spec:
                raise Refused(CONFLICT, f"{vm.meta.name} changed while it went off")
            spec = current.spec.model_copy(update={"power": WantedPower.STOPPED})
            return vm_status.tell(vm_status.as_seen(current.with_spec(spec), seen, now), told, now)

        return change


def _adopted(vm: Vm, epoch: int, active: bool) -> Vm:
    runs_with = vm.spec.hardware if active else None
    return vm.with_status(epoch=max(epoch, vm.status.epoch), runs_with=runs_with)


def _let_go(vm: Vm) -> Vm:
    finalizers = tuple(f for f in vm.meta.finalizers if f != NODE)
    gone = vm.with_status(power=Power.STOPPED, runs_with=None, guest_ready=False, stop_by=None)
    return gone.with_meta(finalizers=finalizers)
