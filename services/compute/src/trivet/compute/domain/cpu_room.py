"""The processors of a node: which a VM gets for its own, and what is left for the rest to share.

A VM that asks for processors of its own gets whole cores, the lowest free ones, and keeps those
that it has. One processor at least stays shared: the node itself needs it. What is chosen here is
claimed with the ledger's compare-and-swap, so no core is given twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from trivet.contracts.compute.node import Inventory, Node, Promise
from trivet.contracts.compute.placement import CpuRoom
from trivet.contracts.model import ResourceId

PCT = 100


def numbers_of(inventory: Inventory) -> tuple[int, ...]:
    """The processors of a node."""
    cores = inventory.cores or ((n,) for n in range(inventory.cpus))
    return tuple(sorted(n for core in cores for n in core))


def room_of(node: Node, vm: ResourceId) -> CpuRoom:
    """The processors of `node` as `vm` finds them."""
    others = [p for id_, p in node.status.promises.items() if id_ != vm]
    inventory = node.status.inventory
    return CpuRoom(
        cpus=inventory.cpus if inventory else 0,
        cores=inventory.cores if inventory else (),
        held=held_by(others),
        pinned=frozenset(number for p in others for number in p.pins),
        overcommit=node.spec.overcommit_cpu,
        used_vcpus=sum(p.vcpus for p in others if not p.exclusive),
        used_pct=sum(p.cpu_pct for p in others),
    )


def held_by(promises: Iterable[Promise]) -> frozenset[int]:
    """The processors that are somebody's own."""
    return frozenset(number for p in promises for number in p.cpus)


def uncontrolled(cpu_control: bool | None, need: Promise) -> str | None:
    """Why what `need` asks of its processors would not hold; None if it does."""
    if not need.controlled or cpu_control:
        return None
    if cpu_control is None:
        return "does not tell whether cpu shares, reservations and limits have an effect there"
    return "has no cgroups for processors: cpu shares, reservations and limits have no effect"


def claim(room: CpuRoom, need: Promise, has: tuple[int, ...] = ()) -> tuple[int, ...] | str:
    """The processors that are `need`'s own in this room (none, if it wants none), those that it
    `has` if they still will do; or, as a sentence, why there is no room."""
    absent = [n for n in need.pins if n >= room.cpus]
    if absent:
        return f"has {room.cpus} processors, cpu.pin names {absent[0]}"
    if lost := sorted(set(need.pins) & room.held):
        return f"cpu.pin names processor {lost[0]}, which is another VM's own"
    if not need.exclusive:
        return _shared_room(room, need) or ()
    own = _own(room, need.exclusive, has)
    if own is None:
        return f"has no {need.exclusive} processors free that VMs could have for their own"
    left = replace(room, held=room.held | {*own})
    return _shared_room(left, Promise(vcpus=0, memory_mib=0)) or own


def _own(room: CpuRoom, count: int, has: tuple[int, ...]) -> tuple[int, ...] | None:
    """Whole cores with `count` processors at least; None where there are none to be had."""
    cores = room.cores or tuple((n,) for n in range(room.cpus))
    free = [c for c in cores if not {*c} & (room.held | room.pinned)]
    kept = sorted(free, key=lambda core: (not {*core} <= {*has}, core))
    own: list[int] = []
    for core in kept:
        if len(own) < count:
            own += core
    return tuple(sorted(own)) if len(own) >= count else None


def _shared_room(room: CpuRoom, need: Promise) -> str | None:
    """Why what is shared is not enough for `need` beside what is used of it; None if it is."""
    count = room.cpus - len(room.held)
    if count <= 0:
        return "would have no processor left to share"
    vcpus, pct = int(count * room.overcommit), count * PCT
    if room.used_vcpus + need.vcpus > vcpus:
        free = max(0, vcpus - room.used_vcpus)
        wanted = f"needs {need.vcpus} vcpus" if need.vcpus else f"has promised {room.used_vcpus}"
        return f"{wanted}, {free} of {vcpus} free"
    if room.used_pct + need.cpu_pct > pct:
        free = max(0, pct - room.used_pct)
        return f"needs {need.cpu_pct} % of a processor for sure, {free} of {pct} % free"
    return None
