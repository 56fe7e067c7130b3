"""What a node can promise to VMs, and the ledger of what it has promised.

A promise is kept for a VM from its placement until it is gone, whether it runs or not, so that
a stopped VM can always start again. The ledger lies in the node's status: one compare-and-swap
both checks and claims, and `used_*` is its sum and never counted apart from it.
"""

from __future__ import annotations

from collections.abc import Mapping

from trivet.compute.domain.cpu_room import PCT, claim, held_by, room_of, uncontrolled
from trivet.contracts.compute.node import Inventory, Node, NodeSpec, Promise
from trivet.contracts.compute.vm import Vm, VmSpec
from trivet.contracts.model import ResourceId


def need_of(vm: Vm) -> Promise:
    """What a VM needs: what is asked, and no less than what its present run has."""
    has, asked = vm.status.runs_with, asked_by(vm.spec)
    sizes = {
        "vcpus": max(asked.vcpus, has.vcpus if has else 0),
        "memory_mib": max(asked.memory_mib, has.memory_mib if has else 0),
    }
    return asked.model_copy(update=sizes)


def asked_by(spec: VmSpec) -> Promise:
    """What a spec asks a node to promise; which processors are to be its own is the node's."""
    cpu = spec.cpu
    return Promise(
        vcpus=spec.vcpus,
        memory_mib=spec.memory_mib,
        cpu_pct=0 if cpu.exclusive else (cpu.reservation_pct or 0) * spec.vcpus,
        controlled=any((cpu.shares, cpu.reservation_pct, cpu.limit_pct)),
        shares=cpu.shares or 0,
        pins=cpu.pin,
        exclusive=spec.vcpus if cpu.exclusive else 0,
    )


def kept(promise: Promise | None, need: Promise) -> bool:
    """Whether `promise` is what `need` needs, no less and no more."""
    if promise is None or len(promise.cpus) < need.exclusive:
        return False
    return promise.model_copy(update={"cpus": ()}) == need


def covers(promise: Promise | None, need: Promise) -> bool:
    """Whether `promise` is enough for `need`."""
    return (
        promise is not None
        and promise.vcpus >= need.vcpus
        and promise.memory_mib >= need.memory_mib
        and promise.cpu_pct >= need.cpu_pct
        and promise.controlled >= need.controlled
        and len(promise.cpus) >= need.exclusive
    )


def allocatable_memory_mib(spec: NodeSpec, inventory: Inventory | None) -> int:
    """The memory that a node can promise in all; none as long as it is not known."""
    return max(0, inventory.memory_mib - spec.reserved_memory_mib) if inventory else 0


def lacks_memory(need: Promise, memory_mib: int, used_memory_mib: int) -> str | None:
    """Why the memory of `need` does not fit beside what is used, as a sentence; None if it
    fits."""
    free_mib = max(0, memory_mib - used_memory_mib)
    fits = need.memory_mib <= free_mib
    return None if fits else f"needs {need.memory_mib} MiB, {free_mib} MiB free"


def used_memory_without(node: Node, vm: ResourceId) -> int:
    """The memory that a node has promised to all VMs but this one (MiB)."""
    return sum(p.memory_mib for id_, p in node.status.promises.items() if id_ != vm)


def no_room(node: Node, vm: ResourceId, need: Promise) -> str | None:
    """Why `node` can't promise `need` to `vm`, whatever it has promised to it; None if it can."""
    inventory, used_mib = node.status.inventory, used_memory_without(node, vm)
    why = lacks_memory(need, node.status.allocatable_memory_mib, used_mib)
    why = why or uncontrolled(inventory.cpu_control if inventory else None, need)
    if why is not None:
        return why
    found = claim(room_of(node, vm), need)
    return found if isinstance(found, str) else None


def with_all(
    node: Node, needs: Mapping[ResourceId, Promise]
) -> tuple[Node, Mapping[ResourceId, str]]:
    """`node` with as many of `needs` promised as fit, in their order; and why the others do
    not."""
    refused: dict[ResourceId, str] = {}
    for vm, need in needs.items():
        if (why := no_room(node, vm, need)) is not None:
            refused[vm] = why
        else:
            node = with_promise(node, vm, need)
    return node, refused


def with_promise(node: Node, vm: ResourceId, need: Promise) -> Node:
    """`node` with `need` promised to `vm`, in place of what was promised to it before, and with
    the processors that are its own; there must be room (`no_room`)."""
    had = node.status.promises.get(vm)
    own = claim(room_of(node, vm), need, had.cpus if had else ())
    assert not isinstance(own, str), own
    return _with_ledger(node, {**node.status.promises, vm: need.model_copy(update={"cpus": own})})


def without_promise(node: Node, vm: ResourceId) -> Node:
    """`node` with nothing promised to `vm`."""
    if vm not in node.status.promises:
        return node
    return _with_ledger(node, {k: v for k, v in node.status.promises.items() if k != vm})


def stale_promises(
    node: Node, placed: Mapping[ResourceId, str | None], gone: frozenset[ResourceId]
) -> tuple[ResourceId, ...]:
    """Promises of `node` that hold room for nobody: to VMs known to be `gone`, and to VMs that
    are `placed` on another node. One to a VM that has no node yet is a claim at work."""
    return tuple(
        vm
        for vm in node.status.promises
        if vm in gone or placed.get(vm) not in (None, node.meta.name)
    )


def _with_ledger(node: Node, promises: Mapping[ResourceId, Promise]) -> Node:
    if promises == node.status.promises:
        return node
    return summed(
        node.with_status(
            promises=dict(promises),
            used_vcpus=sum(p.vcpus for p in promises.values() if not p.exclusive),
            used_cpu_pct=sum(p.cpu_pct for p in promises.values()),
            used_memory_mib=sum(p.memory_mib for p in promises.values()),
        )
    )


def summed(node: Node) -> Node:
    """`node` saying what it can promise of the processors that are no VM's own."""
    inventory = node.status.inventory
    shared = inventory.cpus - len(held_by(node.status.promises.values())) if inventory else 0
    return node.with_status(
        allocatable_vcpus=int(shared * node.spec.overcommit_cpu), allocatable_cpu_pct=shared * PCT
    )
