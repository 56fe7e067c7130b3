"""How a VM's status tells what was seen: its phase, its conditions, in words that say why."""

from __future__ import annotations

from datetime import datetime, timedelta

from trivet.compute.domain.actions import Live, Record
from trivet.compute.domain.hardware import hardware_condition
from trivet.contracts.compute.vm import HARDWARE, Power, Vm, VmDisk, VmNic, WantedPower
from trivet.contracts.elapsed import elapsed_s
from trivet.contracts.resource import Condition, Phase

STEADY_S = 120.0
"""A run of that length counts as a start that went well."""

RESUME_FIRST_S = 0.25
RESUME_LAST_S = 10.0
RESUMES_APART = 3
RESUMES_APART_S = 5.0
RESTART_FIRST_S = 1.0
RESTART_LAST_S = 300.0

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


def as_seen(vm: Vm, seen: Record, now: datetime, *, accel: str | None = None) -> Vm:
    """`vm` with a status that says what its node saw; a run that has ended is closed."""
    off = seen.power is Power.STOPPED
    changes: dict[str, object] = {
        "power": seen.power,
        "guest_ready": seen.ready and not off,
        "observed_generation": vm.meta.generation,
        **_as_run(vm, seen.live, off),
    }
    if off:
        changes |= {"runs_with": None, "stop_by": None, **_end_of_run(vm, seen.reason, now)}
    elif accel is not None:
        changes["accel"] = accel
    told = vm.with_status(**changes)
    if off and vm.status.runs_with is not None:
        told = tell(told, last_run_condition(vm, seen.reason, now), now)
    told = tell(told, running_condition(seen.power, seen.reason), now)
    told = tell(told, hardware_condition(told, bool(seen.live and seen.live.can_plug)), now)
    return told.with_status(phase=phase_of(told, seen.reason))


def _asked_to_end(vm: Vm, reason: str) -> bool:
    """Whether the guest itself, or Trivet for its owner, ended the run."""
    return reason == "shutdown" or vm.status.stop_by is not None


def last_run_condition(vm: Vm, reason: str, now: datetime) -> Condition:
    """How the run that has just ended did so: it stays to be seen when the next one runs."""
    words = "".join(part.capitalize() for part in reason.split("_"))
    ended = _END.get(reason, reason)
    if not _asked_to_end(vm, reason):
        ended += ", and Trivet did not do that"
    began = vm.status.started_at
    ran = f"; ran from {began:%Y-%m-%d %H:%M:%S} to {now:%Y-%m-%d %H:%M:%S} UTC" if began else ""
    return Condition(type="LastRun", status="true", reason=words or "Unknown", message=ended + ran)


def _end_of_run(vm: Vm, reason: str, now: datetime) -> dict[str, object]:
    """Let a VM that ends soon after its start, again and again, wait before the next one."""
    status = vm.status
    if status.runs_with is None:
        return {}
    if _asked_to_end(vm, reason):
        return {"crashes": 0, "restart_at": None}
    lived_s = elapsed_s(status.started_at, now) if status.started_at else STEADY_S
    crashes = status.crashes + 1 if lived_s < STEADY_S else 1
    wait = timedelta(seconds=restart_delay_s(crashes))
    return {"crashes": crashes, "restart_at": now + wait}


def resume_delay_s(resumes: int) -> float:
    """How long a VM whose disk failed again after `resumes` tries in a row waits for the next.
    QEMU connects to a disk that came back while a request fails, so the second try is soon."""
    return min(RESUME_FIRST_S * 2.0 ** min(resumes - 1, 16), RESUME_LAST_S) if resumes else 0.0


def resumes_forgotten_s(resumes: int) -> float:
    """A try that came after so many, and held for that long, has been the last of its row."""
    return max(RESUMES_APART * resume_delay_s(resumes), RESUMES_APART_S)


def resumes_in_a_row(resumes: int, last: datetime | None, now: datetime) -> int:
    """The number of the try that is made now, the one before having been at `last`."""
    fresh = last is None or elapsed_s(last, now) > resumes_forgotten_s(resumes)
    return 1 if fresh else resumes + 1


def restart_delay_s(crashes: int) -> float:
    """How long a VM that crashed `crashes` times in a row waits before it starts again."""
    return min(RESTART_FIRST_S * 2.0 ** min(crashes, 16), RESTART_LAST_S) if crashes > 1 else 0.0


def shows(vm: Vm, seen: Record) -> bool:
    """Whether the status says already what its node sees now."""
    status, has = vm.status, vm.status.condition(HARDWARE)
    if (status.power, status.guest_ready) != (seen.power, seen.ready) or has is None:
        return False
    facts = _as_run(vm, seen.live, seen.power is Power.STOPPED)
    if any(getattr(status, name) != value for name, value in facts.items()):
        return False
    wanted = hardware_condition(vm, bool(seen.live and seen.live.can_plug))
    same = (has.status, has.reason, has.message) == (wanted.status, wanted.reason, wanted.message)
    return same and status.observed_generation == vm.meta.generation


def _as_run(vm: Vm, live: Live | None, off: bool) -> dict[str, object]:
    """The fields that say what the guest has; none of them where that is not seen."""
    if live is None and not off:
        return {}
    disks, nics = (live.disks, live.nics) if live else ((), ())
    found: dict[str, object] = {
        "disks": tuple(d.model_copy(update={"attached": d.name in disks}) for d in vm.status.disks),
        "nics": tuple(n.model_copy(update={"plugged": n.mac in nics}) for n in vm.status.nics),
    }
    has = vm.status.runs_with
    if live and has and live.vcpus and live.memory_mib:
        sizes: dict[str, object] = {"vcpus": live.vcpus, "memory_mib": live.memory_mib}
        if live.tuned:
            sizes["cpu"] = vm.spec.cpu
        found["runs_with"] = has.model_copy(update=sizes)
    return found


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
    vm: Vm, epoch: int, disks: tuple[VmDisk, ...], nics: tuple[VmNic, ...], now: datetime
) -> Vm:
    """`vm` with a run under `epoch` on record as begun, with these disks and cards: written
    before anything is started."""
    new_disks, new_nics = {d.name: d for d in disks}, {n.port: n for n in nics}
    return vm.with_status(
        epoch=epoch,
        runs_with=vm.spec.hardware,
        started_at=now,
        stop_by=None,
        balloon=None,
        disks=tuple(new_disks.get(d.name, d) for d in vm.status.disks),
        nics=tuple(new_nics.get(n.port, n) for n in vm.status.nics),
        addresses=tuple(a for n in nics for a in n.addresses),
    )
