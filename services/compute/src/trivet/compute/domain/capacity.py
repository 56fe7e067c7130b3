"""What a node can promise to VMs, and the ledger of what it has promised.

A promise is kept for a VM from its placement until it is gone, whether it runs or not, so that
a stopped VM can always start again. The ledger lies in the node's status: one compare-and-swap
both checks and claims, and `used_*` is its sum and never counted apart from it.
"""

from __future__ import annotations

from collections.abc import Mapping

from trivet.contracts.compute.node import Inventory, Node, NodeSpec, Promise
from trivet.contracts.compute.vm import Vm
from trivet.contracts.model import ResourceId


def need_of(vm: Vm) -> Promise:
    """What a VM needs: what is asked, and no less than what its present run has."""
    has = vm.status.runs_with
    return Promise(
        vcpus=max(vm.spec.vcpus, has.vcpus if has else 0),
        memory_mib=max(vm.spec.memory_mib, has.memory_mib if has else 0),
    )


def covers(promise: Promise | None, need: Promise) -> bool:
    """Whether `promise` is enough for `need`."""
    return (
        promise is not None
        and promise.vcpus >= need.vcpus
        and promise.memory_mib >= need.memory_mib
    )


def allocatable(spec: NodeSpec, inventory: Inventory | None) -> tuple[int, int]:
    """What a node can promise in all: (vcpus, MiB); nothing as long as it is not known."""
    if inventory is None:
        return 0, 0
    vcpus = int(inventory.cpus * spec.overcommit_cpu)
    return vcpus, max(0, inventory.memory_mib - spec.reserved_memory_mib)


def lacks(
    need: Promise, *, vcpus: int, memory_mib: int, used_vcpus: int, used_memory_mib: int
) -> str | None:
    """Why `need` does not fit beside what is used, as a sentence; None if it fits."""
    free_mib = memory_mib - used_memory_mib
    if need.memory_mib > free_mib:
        return f"needs {need.memory_mib} MiB, {max(0, free_mib)} MiB free"
    free_vcpus = vcpus - used_vcpus
    if need.vcpus > free_vcpus:
        return f"needs {need.vcpus} vcpus, {max(0, free_vcpus)} of {vcpus} free"
    return None


def used_without(node: Node, vm: ResourceId) -> tuple[int, int]:
    """What a node has promised to all VMs but this one: (vcpus, MiB)."""
    others = [p for id_, p in node.status.promises.items() if id_ != vm]
    return sum(p.vcpus for p in others), sum(p.memory_mib for p in others)


def no_room(node: Node, vm: ResourceId, need: Promise) -> str | None:
    """Why `node` can't promise `need` to `vm`, whatever it has promised to it; None if it can."""
    used_vcpus, used_memory_mib = used_without(node, vm)
    return lacks(
        need,
        vcpus=node.status.allocatable_vcpus,
        memory_mib=node.status.allocatable_memory_mib,
        used_vcpus=used_vcpus,
        used_memory_mib=used_memory_mib,
    )


def with_promise(node: Node, vm: ResourceId, need: Promise) -> Node:
    """`node` with `need` promised to `vm`, in place of what was promised to it before."""
    return _with_ledger(node, {**node.status.promises, vm: need})


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
    return node.with_status(
        promises=dict(promises),
        used_vcpus=sum(p.vcpus for p in promises.values()),
        used_memory_mib=sum(p.memory_mib for p in promises.values()),
    )
