"""The duty of the leader towards VMs: a node, parts and an agent for each; none when it goes.

It looks, plans by `domain/vm_plan.py`, does the one step that the plan names, and looks again.
A second leader at the same time does the same steps, which are all claims, compare-and-swaps
or repeatable calls.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime

from trivet.compute.controllers.vm_parts import VmParts
from trivet.compute.controllers.vm_placement import VmPlacement
from trivet.compute.domain import vm_status
from trivet.compute.domain.vm_parts import (
    Part,
    Sources,
    disks_of,
    nics_of,
    origin_volumes,
    to_remove,
    without,
)
from trivet.compute.domain.vm_plan import (
    CONTROLLER,
    NODE,
    SETTLED,
    Step,
    Told,
    VmPlan,
    World,
    plan,
)
from trivet.contracts.compute.image import Image
from trivet.contracts.compute.node import Node
from trivet.contracts.compute.vm import VM, Power, Vm
from trivet.contracts.resource import Condition, Phase
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service

log = logging.getLogger(__name__)

WORKERS = 32
STEPS_BOUND = 20
RESYNC_S = 60.0
NO_NODE_LOOK_S = 10.0


def _waits_for_node(vm: Vm) -> bool:
    """Whether a change of a node may let it go on: it has none, finds too little room where it
    is, or is to go from one that may be gone."""
    short = vm.status.condition("Scheduled")
    starved = short is not None and short.status == "false"
    return vm.status.node is None or vm.meta.deleting_at is not None or starved


class VmController:
    """Keeps VMs placed, whole and handed over."""

    def __init__(
        self,
        service: Service,
        vms: Collection[Vm],
        nodes: Collection[Node],
        images: Collection[Image],
        placement: VmPlacement,
        parts: VmParts,
    ) -> None:
        self._runtime = service.runtime
        self._assignments = service.assignments
        self._vms = vms
        self._nodes = nodes
        self._images = images
        self._placement = placement
        self._parts = parts
        self._reconciler = Reconciler(
            "vm controller",
            self.reconcile,
            clock=self._runtime.clock,
            keys=vms.keys,
            bound=WORKERS,
            resync_s=RESYNC_S,
            calm=self._calm,
        )
        self._waiting: set[str] = set()
        self._assignments.on_dropped(self._pointer_gone)
        vms.on_change(self._vm_changed)
        nodes.on_change(self._node_changed)
        images.on_change(self._image_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._reconciler.run()

    def _pointer_gone(self, kind: str, key: str) -> None:
        if kind == VM.name:
            self._reconciler.wake(key)

    def _calm(self, key: str) -> bool:
        """Whether all is done for a VM: its node has it, and is pointed at it."""
        vm = self._vms.by_key(key)
        if vm is None:
            return True
        if plan(vm, self._look(vm, World())).rule != SETTLED or vm.status.node is None:
            return False
        ready = vm.status.condition("PartsReady")
        pointed = self._assignments.points(
            vm.status.node, VM.name, vm.meta.id, key, vm.meta.generation
        )
        return pointed and (ready is None or ready.status == "true")

    def _vm_changed(self, key: str) -> None:
        vm = self._vms.by_key(key)
        if vm is not None and _waits_for_node(vm):
            self._waiting.add(key)
        else:
            self._waiting.discard(key)
        self._reconciler.wake(key)

    def _node_changed(self, key: str) -> None:
        """Room may have come for a VM that waits for it; a node's loss may let one go."""
        for waiting in list(self._waiting):
            self._reconciler.wake(waiting)

    def _image_changed(self, key: str) -> None:
        image = self._images.by_key(key)
        if image is None:
            return
        for vm in self._vms.list(image.meta.project):
            waits = vm.spec.image == image.meta.name and NODE not in vm.meta.finalizers
            if waits or vm.spec.iso == image.meta.name:
                self._reconciler.wake(self._vms.key_of(vm))

    async def reconcile(self, key: str) -> float | None:
        """Bring one VM as far as it goes now; returns when to look again (seconds)."""
        world = World()
        for _ in range(STEPS_BOUND):
            # The copy will do: each step is a claim, a compare-and-swap or repeatable.
            vm = self._vms.by_key(key)
            if vm is None:
                return None
            world = self._look(vm, world)
            step = plan(vm, world)
            if step.told is not None:
                vm = await self._tell(vm, step.told) or vm
            ended, world, look_s = await self._do(vm, step, world)
            if ended:
                return look_s
        log.warning("%s is not settled after %d steps", key, STEPS_BOUND)
        return 1.0

    def _look(self, vm: Vm, world: World) -> World:
        image = self._images.get(vm.spec.image, vm.meta.project) if vm.spec.image else None
        node = self._nodes.get(vm.status.node) if vm.status.node else None
        return replace(world, image=image, node=node)

    async def _do(self, vm: Vm, step: VmPlan, world: World) -> tuple[bool, World, float | None]:
        """Do the step; whether this pass ends with it, the world known then, the next look."""
        match step.step:
            case Step.PLACE:
                placed = await self._placement.place(vm)
                nowhere = placed is None or placed.status.node is None
                return nowhere, world, NO_NODE_LOOK_S
            case Step.PROMISE:
                fits = await self._placement.adjust(vm)
                return not fits, world, NO_NODE_LOOK_S
            case Step.MAKE_PARTS:
                return False, replace(world, parts=await self._make_parts(vm, world)), None
            case Step.ASSIGN:
                await self._assign(vm)
                return True, world, step.look_s
            case Step.ABANDON_NODE:
                await self._abandon(vm)
                return False, world, None
            case Step.REMOVE_PARTS:
                removal = await self._parts.remove(vm)
                return False, replace(world, removed=not removal, removal=removal), None
            case Step.REMOVE_SOME:
                return False, replace(world, removal=await self._remove_some(vm)), None
            case Step.REMOVE:
                await self._remove(vm)
        return True, world, step.look_s

    async def _make_parts(self, vm: Vm, world: World) -> tuple[Part, ...]:
        """Make parts; on record are, of a VM that its node has, those alone that are ready."""
        assert vm.status.node is not None
        held = NODE in vm.meta.finalizers
        project = vm.meta.project
        iso = self._images.get(vm.spec.iso, project) if vm.spec.iso else None
        sources = Sources(image=world.image, iso=iso)
        if vm.spec.origin is not None and not held:
            origin = self._vms.get(vm.spec.origin, project)
            cut = await self._parts.cut_origin(vm, origin)
            if cut is not None and not cut.ready:
                return (cut,)
            if cut is not None and origin is not None:
                volumes = origin_volumes(vm, origin)
                sources = replace(sources, snapshot=cut.name, volumes=volumes)
        parts = await self._parts.ensure(vm, sources, vm.status.node, more=held)
        made = {p.name for p in parts if not held or p.ready}
        ports = {p.name: p for p in parts if p.kind == "port"}
        whole = not held and all(p.ready for p in parts)
        if whole and vm.spec.origin is not None:
            await self._parts.drop_origin(vm)
        now = self._runtime.clock.now()

        def record(current: Vm) -> Vm:
            if current.spec != vm.spec:
                return current  # the next look makes what is asked for by now
            nics = nics_of(current, ports, made)
            addresses = tuple(a for nic in nics for a in nic.addresses if not nic.released)
            recorded = current.with_status(
                disks=disks_of(current, made), nics=nics, addresses=addresses
            )
            if whole and not to_remove(recorded, held):
                # What comes next anyway, in the same write.
                return _held(recorded, now)
            return recorded

        await self._vms.mutate(self._vms.key_of(vm), record)
        return parts

    async def _remove_some(self, vm: Vm) -> str:
        """Delete what the VM asks for no more; what remains, as a sentence."""
        held = NODE in vm.meta.finalizers
        left = await self._parts.remove_some(vm, to_remove(vm, held))
        gone = {name for name, why in left.items() if not why}
        await self._vms.mutate(
            self._vms.key_of(vm), lambda v: without(v, gone) if v.spec == vm.spec else v
        )
        return "; ".join(why for why in left.values() if why)

    async def _assign(self, vm: Vm) -> None:
        """Hand the VM over to its node's agent: on record in the VM first, then the pointer."""
        if vm.spec.origin is not None and NODE not in vm.meta.finalizers:
            await self._parts.drop_origin(vm)
        now = self._runtime.clock.now()
        held = await self._vms.mutate(self._vms.key_of(vm), lambda v: _held(v, now))
        if held is None or held.status.node is None or NODE not in held.meta.finalizers:
            return
        await self._assignments.assign(
            held.status.node, VM.name, held.meta.id, self._vms.key_of(held), held.meta.generation
        )

    async def _abandon(self, vm: Vm) -> None:
        """Leave a node behind that is gone for good. The pointer stays: should the node come
        back after all, it tells it that the VM was deleted."""
        log.warning("%s is let go without its node %s, which was deleted", vm, vm.status.node)

        def abandon(current: Vm) -> Vm:
            finalizers = tuple(f for f in current.meta.finalizers if f != NODE)
            gone = current.with_status(node=None, power=Power.UNKNOWN)
            return gone.with_meta(finalizers=finalizers)

        if vm.status.node is not None:
            await self._placement.withdraw(vm.status.node, vm.meta.id)
        await self._vms.mutate(self._vms.key_of(vm), abandon)

    async def _remove(self, vm: Vm) -> None:
        if vm.status.node is not None:
            await self._assignments.release(vm.status.node, VM.name, vm.meta.id)
        for node in self._nodes.list():
            if vm.meta.id in node.status.promises:
                await self._placement.withdraw(node.meta.name, vm.meta.id)

        def release(current: Vm) -> Vm:
            if current.meta.id != vm.meta.id:
                return current
            finalizers = tuple(f for f in current.meta.finalizers if f != CONTROLLER)
            return current.with_meta(finalizers=finalizers)

        gone = await self._vms.mutate(self._vms.key_of(vm), release)
        if gone is not None and gone.meta.id == vm.meta.id and not gone.meta.finalizers:
            await self._vms.remove(gone)

    async def _tell(self, vm: Vm, told: Told) -> Vm | None:
        now = self._runtime.clock.now()
        condition = Condition.model_validate(
            {
                "type": told.type,
                "status": told.status,
                "reason": told.reason,
                "message": told.message,
            }
        )

        def change(current: Vm) -> Vm:
            if told.phase is not None and current.meta.deleting_at is None:
                current = current.with_status(
                    phase=told.phase, observed_generation=current.meta.generation
                )
            return vm_status.tell(current, condition, now)

        return await self._vms.mutate(self._vms.key_of(vm), change)


def _held(vm: Vm, now: datetime) -> Vm:
    """The VM with all of its parts, as its node's agent has it from now on."""
    if vm.meta.deleting_at is not None:
        return vm
    ready = Condition(type="PartsReady", status="true", reason="Ready")
    if NODE in vm.meta.finalizers:
        had = vm.status.condition(ready.type)
        more = had is not None and had.status != "true"
        return vm_status.tell(vm, ready, now) if more else vm
    told = vm_status.tell(vm, ready, now).with_status(phase=Phase.PENDING)
    if vm.spec.image is not None:
        image_ready = Condition(type="ImageReady", status="true", reason="Ready")
        told = vm_status.tell(told, image_ready, now)
    return told.with_meta(finalizers=(*vm.meta.finalizers, NODE))
