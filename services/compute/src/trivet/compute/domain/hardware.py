"""The hardware that a VM's spec asks for beside that which its running guest has.

The disks and cards in the status are those that exist: made by the controller, given to the
guest by the node's agent. What the spec names no more is `leaving` until the guest has let go of
it. A gap is one difference, in words, and whether it can be closed while the guest runs; what
can't waits for the next start, and the condition `HardwareCurrent` says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from trivet.contracts.compute.hot_plug import MEMORY_STEP_MIB
from trivet.contracts.compute.vm import (
    APPLYING,
    HARDWARE,
    NEXT_START,
    DiskRequest,
    Hardware,
    NicRequest,
    Power,
    Vm,
    VmDisk,
    VmNic,
    VmSpec,
)
from trivet.contracts.resource import Condition


@dataclass(frozen=True)
class Gap:
    """One thing in which the guest differs from the spec; `live`: it can change as it runs."""

    message: str
    live: bool


def card_name(nic: NicRequest, place: int) -> str:
    """The name of a card of the spec; one of before cards had names is called by its place."""
    return nic.name or str(place)


def card_names(spec: VmSpec) -> tuple[str, ...]:
    """The names of all cards, in order."""
    return tuple(card_name(nic, i) for i, nic in enumerate(spec.nics))


def card_of(vm: Vm, nic: VmNic) -> str:
    """The name of a card of the status."""
    return nic.name or nic.port.removeprefix(f"{vm.meta.name}-")


def disks_asked(spec: VmSpec) -> tuple[DiskRequest, ...]:
    """All disks that are asked for: those of the spec and, behind them, its CD-ROM, whose size is
    its image's."""
    return spec.disks + ((DiskRequest(name=spec.cd, size_gib=1),) if spec.cd else ())


def disks_to_have(vm: Vm) -> tuple[VmDisk, ...]:
    """The disks that are there and asked for, in the order of the spec."""
    there = {d.name: d for d in vm.status.disks if not d.released}
    return tuple(there[d.name] for d in disks_asked(vm.spec) if d.name in there)


def nics_to_have(vm: Vm) -> tuple[VmNic, ...]:
    """The cards that are there and asked for, in the order of the spec."""
    there = {card_of(vm, n): n for n in vm.status.nics if not n.released}
    return tuple(there[name] for name in card_names(vm.spec) if name in there)


def disks_leaving(vm: Vm) -> tuple[VmDisk, ...]:
    """The disks that are asked for no more and not let go of yet."""
    asked = {d.name for d in disks_asked(vm.spec)}
    return tuple(d for d in vm.status.disks if d.name not in asked and not d.released)


def nics_leaving(vm: Vm) -> tuple[VmNic, ...]:
    """The cards that are asked for no more and not let go of yet."""
    asked = set(card_names(vm.spec))
    return tuple(n for n in vm.status.nics if card_of(vm, n) not in asked and not n.released)


def lacking(vm: Vm) -> tuple[str, ...]:
    """What the spec asks for and is not there at all yet, in words."""
    disks = {d.name for d in disks_to_have(vm)}
    nics = {card_of(vm, n) for n in nics_to_have(vm)}
    return (
        *(f"disk {d.name}" for d in disks_asked(vm.spec) if d.name not in disks),
        *(f"nic {name}" for name in card_names(vm.spec) if name not in nics),
    )


def gaps(vm: Vm) -> tuple[Gap, ...]:
    """All differences, as the status has them on record."""
    return (*_device_gaps(vm), *_disk_size_gaps(vm), *_size_gaps(vm))


def _disk_size_gaps(vm: Vm) -> list[Gap]:
    has = {d.name: d.guest_gib for d in disks_to_have(vm) if d.attached and d.guest_gib}
    return [
        Gap(f"disk {d.name} of {d.size_gib} GiB (has {has[d.name]})", live=True)
        for d in vm.spec.disks
        if d.name in has and d.size_gib > has[d.name]
    ]


def _device_gaps(vm: Vm) -> list[Gap]:
    has_disks = {d.name for d in disks_to_have(vm) if d.attached}
    has_nics = {card_of(vm, n) for n in nics_to_have(vm) if n.plugged}
    found = [f"disk {d.name} is to come" for d in vm.spec.disks if d.name not in has_disks]
    found += [f"nic {n} is to come" for n in card_names(vm.spec) if n not in has_nics]
    cd = vm.spec.cd
    lacks_cd = cd is not None and cd not in has_disks
    comes = [Gap(f"disk {cd} is to come", live=can_have_cd(vm))] if lacks_cd else []
    found += [f"disk {d.name} is to go" for d in disks_leaving(vm) if d.attached]
    found += [f"nic {card_of(vm, n)} is to go" for n in nics_leaving(vm) if n.plugged]
    return [*(Gap(message, live=True) for message in found), *comes]


def can_have_cd(vm: Vm) -> bool:
    """Whether the present run has a drive for a CD-ROM."""
    return vm.status.runs_with is not None and vm.status.runs_with.cdrom


def _size_gaps(vm: Vm) -> list[Gap]:
    has, asked = vm.status.runs_with, vm.spec.hardware
    if has is None or has == asked:
        return []
    found = []
    if asked.vcpus != has.vcpus:
        words = f"{asked.vcpus} vcpus (has {has.vcpus})"
        found.append(Gap(words, can_have_vcpus(has, asked)))
    if asked.memory_mib != has.memory_mib:
        words = f"{asked.memory_mib} MiB of memory (has {has.memory_mib})"
        found.append(Gap(words, can_have_memory(has, asked)))
    room = (asked.max_vcpus, asked.max_memory_mib)
    if room != (has.max_vcpus, has.max_memory_mib):
        found.append(Gap("other room to grow", live=False))
    if asked.tpm != has.tpm:
        found.append(Gap("a TPM" if asked.tpm else "no TPM", live=False))
    if asked.cpu != has.cpu:
        found.append(Gap("other cpu tuning", live=True))
    return found


def can_have_vcpus(has: Hardware, asked: Hardware) -> bool:
    """Whether a run can get the vcpus that are asked for: more, up to those it was made for. None
    is ever taken from a running guest: QEMU 7.2 may crash at the next that it is then given."""
    return has.vcpus < asked.vcpus <= (has.max_vcpus or has.vcpus)


def can_have_memory(has: Hardware, asked: Hardware) -> bool:
    """Whether a run can get the memory that is asked for: more, in whole steps, up to that which
    it was made for. (Guests do not give memory back as hardware: they refuse.)"""
    more = asked.memory_mib - has.memory_mib
    return 0 < more <= (has.max_memory_mib or 0) - has.memory_mib and more % MEMORY_STEP_MIB == 0


def hardware_condition(vm: Vm, can_plug: bool) -> Condition:
    """Whether the guest has the hardware that is asked for, and what becomes of the rest."""
    if vm.status.power is Power.STOPPED:
        return _while_off(vm)
    found = gaps(vm)
    if not found:
        return Condition(type=HARDWARE, status="true", reason="Current")
    live = [g.message for g in found if g.live and can_plug]
    later = [g.message for g in found if not (g.live and can_plug)]
    if vm.status.power is not Power.RUNNING and live:
        reason, told = "Paused", [f"as soon as it runs on: {', '.join(live)}"]
    elif live:
        reason, told = APPLYING, [f"now: {', '.join(live)}"]
    else:
        reason, told = NEXT_START, []
    if later:
        told.append(f"at its next start: {', '.join(later)}")
    return Condition(type=HARDWARE, status="false", reason=reason, message="; ".join(told))


def _while_off(vm: Vm) -> Condition:
    """What it starts with is whole once all is made that is asked for, and the rest let go of."""
    found = [f"{what} is to come" for what in lacking(vm)]
    found += [f"disk {d.name} is to go" for d in disks_leaving(vm)]
    found += [f"nic {card_of(vm, n)} is to go" for n in nics_leaving(vm)]
    if not found:
        return Condition(type=HARDWARE, status="true", reason="Off")
    told = f"now: {', '.join(found)}"
    return Condition(type=HARDWARE, status="false", reason=APPLYING, message=told)
