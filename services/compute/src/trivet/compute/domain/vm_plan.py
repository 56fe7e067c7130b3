"""What the cluster's controller does next for one VM: a rule table, first match wins.

A VM is given its parts in an order that leaves nothing behind: room on a node, then volumes
and ports, then its node's agent. It loses them in the reverse order: the agent first, for a
disk must not go from under a guest. A node that is only silent keeps its VMs: they may run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from trivet.compute.domain.capacity import kept, need_of
from trivet.compute.domain.vm_parts import Part, to_make, to_remove
from trivet.contracts.compute.image import Image
from trivet.contracts.compute.node import Node
from trivet.contracts.compute.vm import Vm
from trivet.contracts.resource import Phase

CONTROLLER = "controller"
NODE = "node"
LOOK_S = 2.0
GOING_LOOK_S = 0.5
SLOW_LOOK_S = 15.0
SETTLED = "assigned"
"""The rule of a VM that has all it asks for: only its pointer is made sure of."""


class Step(StrEnum):
    """What the controller can be told to do; each may be repeated."""

    TELL = "tell"
    PLACE = "place"
    PROMISE = "promise"
    MAKE_PARTS = "make_parts"
    ASSIGN = "assign"
    ABANDON_NODE = "abandon_node"
    REMOVE_PARTS = "remove_parts"
    REMOVE_SOME = "remove_some"
    REMOVE = "remove"


@dataclass(frozen=True)
class Told:
    """A condition to be shown, and the phase that goes with it (None: as it is)."""

    type: str
    status: str
    reason: str
    message: str
    phase: Phase | None = None


@dataclass(frozen=True)
class World:
    """What else the controller sees: the VM's image and node (None: not there), and its parts,
    once they have been asked for in this pass. `removed`: all parts are known to be gone that
    have to go; `removal` says what remains of them."""

    image: Image | None = None
    node: Node | None = None
    parts: tuple[Part, ...] | None = None
    removed: bool = False
    removal: str = ""


@dataclass(frozen=True)
class VmPlan:
    """The next step, by which rule and why; `told` goes into the VM's conditions."""

    rule: str
    why: str
    step: Step | None = None
    told: Told | None = None
    look_s: float | None = None


@dataclass(frozen=True)
class _Rule:
    name: str
    why: str
    when: Callable[[Vm, World], bool]
    step: Step | None
    told: Callable[[Vm, World], Told | None] = field(default=lambda vm, world: None)
    look_s: float | None = None


def _deleting(vm: Vm) -> bool:
    return vm.meta.deleting_at is not None


def _held_by_node(vm: Vm) -> bool:
    return NODE in vm.meta.finalizers


def _node_is_gone(vm: Vm, world: World) -> bool:
    """Gone means that a person said so: by deleting a node that is silent."""
    node = world.node
    silent = node is not None and node.status.phase is not Phase.READY
    return node is None or (silent and node.meta.deleting_at is not None)


def _node_is_silent(vm: Vm, world: World) -> bool:
    return world.node is not None and world.node.status.phase is Phase.UNKNOWN


def _image_is_wanted(vm: Vm, world: World) -> bool:
    return vm.spec.image is not None and not _held_by_node(vm)


def _silent(vm: Vm, world: World) -> Told:
    return Told(
        "Deletable",
        "false",
        "NodeUnknown",
        f"{vm.status.node} is not heard from and may still run it; it goes when the node is back, "
        f"or when the node is deleted because it is gone for good",
    )


def _image_told(vm: Vm, world: World) -> Told:
    image, name = world.image, vm.spec.image
    if image is None:
        return Told("ImageReady", "false", "Gone", f"there is no image {name}", Phase.FAILED)
    if image.status.phase is Phase.FAILED:
        why = image.status.condition("Imported")
        message = f"image {name} failed: {why.message if why else 'see the image'}"
        return Told("ImageReady", "false", "ImageFailed", message, Phase.FAILED)
    message = f"image {name} is {image.status.phase}, {image.status.progress_pct} % imported"
    return Told("ImageReady", "false", "Importing", message, Phase.PENDING)


def _parts_told(vm: Vm, world: World) -> Told:
    unready = [p for p in world.parts or () if not p.ready]
    refused = [p for p in unready if p.refused]
    shown = refused or unready
    message = "; ".join(f"{p.kind} {p.name}: {p.message or 'not ready yet'}" for p in shown)
    reason = "PartRefused" if refused else "PartsPending"
    if _held_by_node(vm):
        # It has what it runs with; what is new is not there, and no reason to call it failed.
        return Told("PartsReady", "false", reason, message)
    return Told("PartsReady", "false", reason, message, Phase.FAILED if refused else Phase.PENDING)


def _goes(vm: Vm, world: World) -> bool:
    return bool(to_remove(vm, _held_by_node(vm)))


def _comes(vm: Vm, world: World) -> bool:
    return _held_by_node(vm) and bool(to_make(vm))


_RULES: tuple[_Rule, ...] = (
    _Rule(
        "delete-node-gone",
        "its node was deleted while silent: a person said that nothing runs there any more",
        lambda vm, w: _deleting(vm) and _held_by_node(vm) and _node_is_gone(vm, w),
        Step.ABANDON_NODE,
    ),
    _Rule(
        "delete-node-silent",
        "its node may still run it, so its disks can't go",
        lambda vm, w: _deleting(vm) and _held_by_node(vm) and _node_is_silent(vm, w),
        Step.TELL,
        _silent,
        SLOW_LOOK_S,
    ),
    _Rule(
        "delete-node-holds",
        "its node's agent stops it and lets go",
        lambda vm, w: _deleting(vm) and _held_by_node(vm),
        Step.ASSIGN,
        lambda vm, w: Told("Deletable", "false", "Stopping", f"{vm.status.node} lets go of it"),
        SLOW_LOOK_S,
    ),
    _Rule(
        "delete-parts",
        "no node holds it: its volumes and ports go",
        lambda vm, w: _deleting(vm) and not w.removed and not w.removal,
        Step.REMOVE_PARTS,
    ),
    _Rule(
        "delete-parts-wait",
        "some of its parts are not gone yet",
        lambda vm, w: _deleting(vm) and not w.removed,
        Step.TELL,
        lambda vm, w: Told("Deletable", "false", "PartsRemain", w.removal),
        GOING_LOOK_S,
    ),
    _Rule("delete", "nothing is left of it", lambda vm, w: _deleting(vm), Step.REMOVE),
    _Rule(
        "image-wait",
        "its first disk begins as its image, which must be whole before",
        lambda vm, w: (
            _image_is_wanted(vm, w) and (w.image is None or w.image.status.phase is not Phase.READY)
        ),
        Step.TELL,
        _image_told,
        SLOW_LOOK_S,
    ),
    _Rule("place", "it has no node", lambda vm, w: vm.status.node is None, Step.PLACE),
    _Rule(
        "promise",
        "its node has promised it less than it asks for, or more than it needs",
        lambda vm, w: (
            w.node is not None and not kept(w.node.status.promises.get(vm.meta.id), need_of(vm))
        ),
        Step.PROMISE,
    ),
    _Rule(
        "remove-some",
        "parts that it asks for no more, and that nobody holds: they go",
        lambda vm, w: _goes(vm, w) and not w.removal,
        Step.REMOVE_SOME,
    ),
    _Rule(
        "make-more",
        "its node has it, and it asks for other disks or cards than it has",
        lambda vm, w: _comes(vm, w) and w.parts is None,
        Step.MAKE_PARTS,
    ),
    _Rule(
        "more-refused",
        "what it asks for beside what it has can't be made; tried again from time to time",
        lambda vm, w: _comes(vm, w) and any(p.refused for p in w.parts or ()),
        Step.TELL,
        _parts_told,
        SLOW_LOOK_S,
    ),
    _Rule(
        "more-wait",
        "what it asks for beside what it has is being made",
        lambda vm, w: _comes(vm, w),
        Step.TELL,
        _parts_told,
        LOOK_S,
    ),
    _Rule(
        "remove-wait",
        "parts that it asks for no more are going",
        lambda vm, w: _held_by_node(vm) and _goes(vm, w),
        Step.TELL,
        lambda vm, w: Told("PartsReady", "false", "PartsGoing", w.removal),
        GOING_LOOK_S,
    ),
    _Rule(
        SETTLED,
        "its node's agent has it; the pointer is kept up to date",
        lambda vm, w: _held_by_node(vm),
        Step.ASSIGN,
    ),
    _Rule(
        "make-parts",
        "it has room and lacks volumes or ports",
        lambda vm, w: w.parts is None,
        Step.MAKE_PARTS,
    ),
    _Rule(
        "parts-refused",
        "a part of it can't be made; tried again from time to time, should that change",
        lambda vm, w: any(p.refused for p in w.parts or ()),
        Step.TELL,
        _parts_told,
        SLOW_LOOK_S,
    ),
    _Rule(
        "parts-wait",
        "parts of it are being made",
        lambda vm, w: any(not p.ready for p in w.parts or ()),
        Step.TELL,
        _parts_told,
        LOOK_S,
    ),
    _Rule(
        "assign", "its volumes are ready and its ports are there", lambda vm, w: True, Step.ASSIGN
    ),
)


def plan(vm: Vm, world: World) -> VmPlan:
    """The next step for a VM."""
    rule = next(r for r in _RULES if r.when(vm, world))
    return VmPlan(rule.name, rule.why, rule.step, rule.told(vm, world), rule.look_s)


RULE_NAMES = tuple(r.name for r in _RULES)
