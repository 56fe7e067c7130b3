"""How a VM's status tells what was seen: its phase, its conditions, in words that say why."""

from __future__ import annotations

from datetime import datetime

from trivet.contracts.compute.vm import Hardware, Power, Vm, VmDisk, WantedPower
from trivet.contracts.resource import Condition, Phase

_END = {
    "absent": "it is not there",
    "booted": "it was started",
    "crashed": "the guest crashed",
    "destroyed": "its power was cut",
    "io_error": "a disk failed; it is stopped until the disk answers, so that it sees no error",
    "shutdown": "the guest went off",
    "user": "as it was asked to",
    "unknown": "the hypervisor does not say why",
}


def as_seen(
    vm: Vm, power: Power, reason: str, ready: bool, now: datetime, *, accel: str | None = None
) -> Vm:
    """`vm` with a status that says what its node saw; a run that has ended is closed."""
    status = vm.status
    off = power is Power.STOPPED
    changes: dict[str, object] = {
        "power": power,
        "guest_ready": ready and not off,
        "observed_generation": vm.meta.generation,
    }
    if off:
        changes |= {
            "runs_with": None,
            "stop_by": None,
            "disks": tuple(d.model_copy(update={"attached": False}) for d in status.disks),
        }
    elif accel is not None:
        changes["accel"] = accel
    seen = vm.with_status(**changes)
    seen = tell(seen, running_condition(power, reason), now)
    seen = tell(seen, restart_condition(seen), now)
    return seen.with_status(phase=phase_of(seen, reason))


def tell(vm: Vm, condition: Condition, now: datetime) -> Vm:
    """`vm` with that condition in its status."""
    return vm.model_copy(update={"status": vm.status.with_condition(condition, now)})


def running_condition(power: Power, reason: str) -> Condition:
    """Whether it runs, and why (not)."""
    status = {Power.RUNNING: "true", Power.UNKNOWN: "unknown"}.get(power, "false")
    words = "".join(part.capitalize() for part in reason.split("_"))
    return Condition.model_validate(
        {
            "type": "Running",
            "status": status,
            "reason": words or "Unknown",
            "message": f"{power}: {_END.get(reason, reason)}",
        }
    )


def restart_condition(vm: Vm) -> Condition:
    """Whether what is asked takes effect only when it starts again."""
    has, asked = vm.status.runs_with, vm.spec.hardware
    if has is None or has == asked:
        return Condition(type="RestartNeeded", status="false", reason="UpToDate")
    return Condition(
        type="RestartNeeded",
        status="true",
        reason="HardwareChanged",
        message=f"runs with {_told(has)}; {_told(asked)} take effect at its next start",
    )


def phase_of(vm: Vm, reason: str = "") -> Phase:
    """The phase that goes with the power that is seen."""
    if vm.meta.deleting_at is not None:
        return Phase.DELETING
    if vm.status.power is Power.UNKNOWN:
        return Phase.UNKNOWN
    if vm.status.power.value == vm.spec.power.value:
        return Phase.READY
    if reason == "io_error" and vm.spec.power is WantedPower.RUNNING:
        return Phase.DEGRADED
    return Phase.PENDING


def lost(vm: Vm, message: str, now: datetime) -> Vm:
    """`vm` whose power is not known, and why."""
    if vm.status.power is not Power.UNKNOWN:
        vm = vm.with_status(power=Power.UNKNOWN, phase=Phase.UNKNOWN)
    if vm.meta.deleting_at is not None:
        vm = vm.with_status(phase=Phase.DELETING)
    told = Condition(type="Running", status="unknown", reason="NotHeard", message=message)
    return tell(vm, told, now)


def booting(
    vm: Vm, epoch: int, disks: tuple[VmDisk, ...], addresses: tuple[tuple[str, ...], ...]
) -> Vm:
    """`vm` with a run under `epoch` on record as begun: written before anything is started."""
    nics = tuple(
        nic.model_copy(update={"addresses": found})
        for nic, found in zip(vm.status.nics, addresses, strict=True)
    )
    return vm.with_status(
        epoch=epoch,
        runs_with=vm.spec.hardware,
        stop_by=None,
        disks=disks,
        nics=nics,
        addresses=tuple(a for found in addresses for a in found),
    )


def _told(hardware: Hardware) -> str:
    tuned = " and other cpu tuning" if hardware.cpu != type(hardware.cpu)() else ""
    return f"{hardware.vcpus} vcpus, {hardware.memory_mib} MiB{tuned}"
