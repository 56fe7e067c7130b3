"""How a VM gets its processors on its node: from what it asks for and what the node has promised.

Shares weigh VMs against each other; where some have a reservation, weights are lifted so far that
each gets what is reserved for it also when all want all they can get. VMs that have no
processors of their own stay off those that others have.
"""

from __future__ import annotations

from collections.abc import Mapping

from trivet.compute.domain.cpu_room import PCT, held_by, numbers_of
from trivet.contracts.compute.hypervisor import DomainTuning
from trivet.contracts.compute.node import Node, Promise
from trivet.contracts.compute.vm import Vm
from trivet.contracts.model import ResourceId

VCPU_SHARES = 1024
MIN_SHARES, MAX_SHARES = 2, 262144


def shares_of(promise: Promise) -> int:
    """What a VM weighs by itself: what it asks for, or the same for each vcpu."""
    return promise.shares or min(VCPU_SHARES * promise.vcpus, MAX_SHARES)


def weights(node: Node) -> Mapping[ResourceId, int]:
    """What each VM weighs on `node`, by what is promised; VMs with processors of their own weigh
    against nobody there. A VM is lifted where its share of the shares would be less than what is
    reserved for it; that makes others' share less, so it is looked again until none is left."""
    sharing = {id_: p for id_, p in node.status.promises.items() if not p.exclusive}
    plain = {id_: float(shares_of(p)) for id_, p in sharing.items()}
    total_pct = node.status.allocatable_cpu_pct
    lifted: dict[ResourceId, float] = {}
    for _ in sharing if total_pct > 0 else ():
        free = {id_: value for id_, value in plain.items() if id_ not in lifted}
        left, whole = 1.0 - sum(lifted.values()), sum(free.values())
        short = {
            id_: sharing[id_].cpu_pct / total_pct
            for id_, value in free.items()
            if sharing[id_].cpu_pct / total_pct > left * value / whole
        }
        if not short:
            break
        lifted |= short
    return _scaled(plain, lifted)


def _scaled(
    plain: Mapping[ResourceId, float], lifted: Mapping[ResourceId, float]
) -> Mapping[ResourceId, int]:
    """Weights of which those that are `lifted` have that part of the whole; the others keep what
    they have, if that can be: who reserves all there is outweighs them as far as weights go."""
    free = sum(value for id_, value in plain.items() if id_ not in lifted)
    left = 1.0 - sum(lifted.values())
    if not free:
        return {id_: _bounded(part * MAX_SHARES) for id_, part in lifted.items()}
    whole = min(free / left if left > 0 else MAX_SHARES, MAX_SHARES)
    down = min(1.0, max(left, 0.0) * whole / free)
    return {
        id_: _bounded(lifted[id_] * whole if id_ in lifted else value * down)
        for id_, value in plain.items()
    }


def _bounded(shares: float) -> int:
    return max(MIN_SHARES, min(round(shares), MAX_SHARES))


def tuning_of(vm: Vm, node: Node) -> DomainTuning:
    """How `vm` is to get its processors on `node`; where shares and limits have no effect there,
    none are asked for."""
    status = node.status
    promise, inventory = status.promises.get(vm.meta.id), status.inventory
    cpu = vm.spec.cpu
    own = promise.cpus[: vm.spec.vcpus] if promise is not None and cpu.exclusive else ()
    return DomainTuning(
        shares=_weight(vm, node) if inventory is not None and inventory.cpu_control else None,
        limit_pct=cpu.limit_pct if inventory is not None and inventory.cpu_control else None,
        pin=own or cpu.pin,
        allowed=_allowed(node),
    )


def _weight(vm: Vm, node: Node) -> int:
    """Where nothing is reserved, others need not be looked at."""
    promise = node.status.promises.get(vm.meta.id)
    if promise is None:
        return vm.spec.cpu.shares or min(VCPU_SHARES * vm.spec.vcpus, MAX_SHARES)
    if node.status.used_cpu_pct == 0 or promise.exclusive:
        return shares_of(promise)
    return weights(node)[vm.meta.id]


def _allowed(node: Node) -> tuple[int, ...]:
    """The processors that VMs share; empty where that is all of them."""
    inventory = node.status.inventory
    if inventory is None or node.status.allocatable_cpu_pct == inventory.cpus * PCT:
        return ()
    held = held_by(node.status.promises.values())
    return tuple(n for n in numbers_of(inventory) if n not in held) if held else ()
