"""Where a VM goes: filters say why a node can't take it, scorers how well it would suit.

The answer has a sentence for every node, so that "why there" and "why nowhere" can be read from
the VM itself. It is a pure function of what it is given, ties going to the first name, so that
a decision can be replayed. Plugins add filters and scorers of the same two Protocols.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from trivet.compute.domain.capacity import asked_by, lacks_memory, used_memory_without
from trivet.compute.domain.cpu_room import claim, room_of, uncontrolled
from trivet.contracts.compute.node import Node
from trivet.contracts.compute.placement import NodeView, PlacementFilter, PlacementScorer
from trivet.contracts.compute.vm import Vm, VmSpec
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Phase

EXPLAINED_NODES = 20


@dataclass(frozen=True)
class Verdict:
    """What was found of one node: `score` None means it can't take the VM, and `why` says so."""

    node: str
    score: float | None
    why: str


@dataclass(frozen=True)
class Decision:
    """Where the VM goes (None: nowhere), and a verdict for every node, best first."""

    node: str | None
    verdicts: tuple[Verdict, ...]

    def explain(self) -> str:
        """The verdicts in one line, those of the first nodes."""
        if not self.verdicts:
            return "there are no nodes"
        told = "; ".join(f"{v.node}: {v.why}" for v in self.verdicts[:EXPLAINED_NODES])
        rest = len(self.verdicts) - EXPLAINED_NODES
        return told + (f"; and {rest} more" if rest > 0 else "")


class Ready:
    """A node that is not heard from, or does not work, takes nothing."""

    name: ClassVar[str] = "ready"

    def refuse(self, vm: VmSpec, node: NodeView) -> str | None:
        """Why not."""
        return None if node.ready else "is not ready"


class Maintenance:
    """A node in maintenance takes no new work."""

    name: ClassVar[str] = "maintenance"

    def refuse(self, vm: VmSpec, node: NodeView) -> str | None:
        """Why not."""
        return "is in maintenance" if node.maintenance else None


class Named:
    """`placement.nodes` names the only nodes."""

    name: ClassVar[str] = "nodes"

    def refuse(self, vm: VmSpec, node: NodeView) -> str | None:
        """Why not."""
        wanted = vm.placement.nodes
        if vm.placement.strength != "must" or not wanted or node.name in wanted:
            return None
        return f"is none of placement.nodes ({', '.join(wanted)})"


class Firmware:
    """The node has the firmware that the VM boots with, and a TPM where one is asked for."""

    name: ClassVar[str] = "firmware"

    def refuse(self, vm: VmSpec, node: NodeView) -> str | None:
        """Why not."""
        if vm.firmware not in node.firmware:
            return f"has no {vm.firmware} firmware"
        return "has no TPM to give (swtpm)" if vm.tpm and not node.tpm else None


class Processors:
    """Pinned processors exist, whole cores are free where some are to be the VM's own, and of
    what VMs share there is enough, as vcpus under the node's overcommit and for sure."""

    name: ClassVar[str] = "cpu"

    def refuse(self, vm: VmSpec, node: NodeView) -> str | None:
        """Why not."""
        found = claim(node.room, asked_by(vm))
        return found if isinstance(found, str) else None


class CpuControlled:
    """Shares, a limit and a reservation hold only where the hypervisor has the means."""

    name: ClassVar[str] = "cpu_control"

    def refuse(self, vm: VmSpec, node: NodeView) -> str | None:
        """Why not."""
        return uncontrolled(node.cpu_control, asked_by(vm))


class Memory:
    """Memory is never promised twice."""

    name: ClassVar[str] = "memory"

    def refuse(self, vm: VmSpec, node: NodeView) -> str | None:
        """Why not."""
        return lacks_memory(asked_by(vm), node.allocatable_memory_mib, node.used_memory_mib)


class Apart:
    """Not beside those that the VM is to be kept apart from."""

    name: ClassVar[str] = "keep_apart"

    def refuse(self, vm: VmSpec, node: NodeView) -> str | None:
        """Why not."""
        beside = sorted(set(vm.placement.keep_apart) & set(node.vms))
        if vm.placement.strength != "must" or not beside:
            return None
        return f"runs {beside[0]}, which is to be kept apart"


class Together:
    """With those that the VM is to be kept together with."""

    name: ClassVar[str] = "keep_together"

    def refuse(self, vm: VmSpec, node: NodeView) -> str | None:
        """Why not."""
        missing = sorted(set(vm.placement.keep_together) - set(node.vms))
        if vm.placement.strength != "must" or not missing:
            return None
        return f"does not run {missing[0]}, which is to be kept together"


class Spread:
    """Prefers the node that would have the larger share of memory and processors left."""

    name: ClassVar[str] = "spread"
    weight: ClassVar[float] = 1.0

    def score(self, vm: VmSpec, node: NodeView) -> float:
        """The mean of the two shares."""
        memory = _left(node.allocatable_memory_mib, node.used_memory_mib + vm.memory_mib)
        return (memory + _left(node.allocatable_vcpus, node.used_vcpus + vm.vcpus)) / 2


class Wishes:
    """Prefers the node that meets most of the wishes of a placement that is only preferred."""

    name: ClassVar[str] = "wishes"
    weight: ClassVar[float] = 10.0

    def score(self, vm: VmSpec, node: NodeView) -> float:
        """The share of wishes that the node meets; 1 where there are none."""
        wish = vm.placement
        met = [name in node.vms for name in wish.keep_together]
        met += [name not in node.vms for name in wish.keep_apart]
        met += [node.name in wish.nodes] if wish.nodes else []
        return sum(met) / len(met) if met else 1.0


FILTERS: tuple[PlacementFilter, ...] = (
    Ready(),
    Maintenance(),
    Named(),
    Firmware(),
    Memory(),
    Processors(),
    CpuControlled(),
    Apart(),
    Together(),
)
SCORERS: tuple[PlacementScorer, ...] = (Spread(), Wishes())


def place(
    vm: VmSpec,
    nodes: Iterable[NodeView],
    filters: Sequence[PlacementFilter] = FILTERS,
    scorers: Sequence[PlacementScorer] = SCORERS,
) -> Decision:
    """The best node for `vm`; the same answer for the same input, in whatever order."""
    verdicts = [_judge(vm, node, filters, scorers) for node in nodes]
    verdicts.sort(key=lambda v: (v.score is None, -(v.score or 0.0), v.node))
    best = verdicts[0] if verdicts and verdicts[0].score is not None else None
    return Decision(best.node if best else None, tuple(verdicts))


def _judge(
    vm: VmSpec,
    node: NodeView,
    filters: Sequence[PlacementFilter],
    scorers: Sequence[PlacementScorer],
) -> Verdict:
    reasons = [why for f in filters if (why := f.refuse(vm, node)) is not None]
    if reasons:
        return Verdict(node.name, None, ", ".join(reasons))
    parts = [(s.name, s.weight, s.score(vm, node)) for s in scorers]
    total = sum(weight for _, weight, _ in parts)
    score = sum(weight * value for _, weight, value in parts) / total if total else 0.0
    told = ", ".join(f"{name} {value:.2f}" for name, _, value in parts)
    return Verdict(node.name, score, f"can take it, score {score:.3f} ({told})")


def _left(allocatable: int, used: int) -> float:
    return max(0.0, min(1.0, 1 - used / allocatable)) if allocatable else 0.0


def view(node: Node, vm: ResourceId, vms: Iterable[str]) -> NodeView:
    """A node as placement of `vm` sees it: what it has promised to `vm` itself is free; `vms`
    are the names of the VMs of the same project on it."""
    status, room = node.status, room_of(node, vm)
    inventory = status.inventory
    return NodeView(
        name=node.meta.name,
        ready=status.phase is Phase.READY and node.meta.deleting_at is None,
        maintenance=node.spec.maintenance,
        cpus=inventory.cpus if inventory else 0,
        allocatable_vcpus=int((room.cpus - len(room.held)) * room.overcommit),
        allocatable_memory_mib=status.allocatable_memory_mib,
        used_vcpus=room.used_vcpus,
        used_memory_mib=used_memory_without(node, vm),
        firmware=inventory.firmware if inventory else (),
        tpm=inventory is not None and inventory.tpm,
        cpu_control=inventory.cpu_control if inventory else None,
        room=room,
        vms=tuple(sorted(vms)),
    )


def effective_spec(vm: Vm, others: Iterable[Vm]) -> VmSpec:
    """The spec that placement decides by, seen with the other VMs of the project.

    Keeping apart is mutual: a placed VM that must be apart from this one counts as if this one
    had said so. Keeping together binds only to VMs that have a place.
    """
    placed = [o for o in others if o.status.node is not None and o.meta.id != vm.meta.id]
    names = {o.meta.name for o in placed}
    wish = vm.spec.placement
    shunning = {
        o.meta.name
        for o in placed
        if vm.meta.name in o.spec.placement.keep_apart and o.spec.placement.strength == "must"
    }
    apart = tuple(sorted({*wish.keep_apart, *shunning})) if wish.strength == "must" else ()
    changed = wish.model_copy(
        update={
            "keep_together": tuple(n for n in wish.keep_together if n in names),
            "keep_apart": apart or wish.keep_apart,
        }
    )
    return vm.spec.model_copy(update={"placement": changed})
