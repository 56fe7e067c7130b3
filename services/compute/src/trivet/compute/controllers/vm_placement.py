"""Gives VMs a node: the decision, the promise of room, and the record, in that order.

The decision is a pure function; the promise is one compare-and-swap on the node that both
checks and claims, so whatever was decided on an older look can't be promised twice. All that wait
at the same time are decided in turn, each seeing the ones before it, and what one node promises
to them is one write. A promise that was made and then not recorded (the controller died between
the two) is found by the next decision for that VM, which sees its own promise as free room, and
is taken back once the VM has a node.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trivet.compute.controllers.vm_names import VmNames
from trivet.compute.domain import capacity, vm_status
from trivet.compute.domain.placement import FILTERS, SCORERS, Decision, effective_spec, place, view
from trivet.contracts.compute.node import Node
from trivet.contracts.compute.placement import PlacementFilter, PlacementScorer
from trivet.contracts.compute.vm import Vm
from trivet.contracts.errors import UNAVAILABLE, Retry
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Condition, Phase
from trivet.runtime.clock import Clock
from trivet.runtime.collection import Collection


@dataclass(eq=False)
class _Wanted:
    """A VM that waits for a node; once it was its turn, what was decided, or what came in
    between."""

    vm: Vm
    decision: Decision | None = None
    failure: Exception | None = None


class VmPlacement:
    """Places VMs, those that wait at the same time together."""

    def __init__(
        self,
        vms: Collection[Vm],
        nodes: Collection[Node],
        clock: Clock,
        filters: Sequence[PlacementFilter],
        scorers: Sequence[PlacementScorer],
    ) -> None:
        self._vms = vms
        self._nodes = nodes
        self._clock = clock
        self._filters = (*FILTERS, *filters)
        self._scorers = (*SCORERS, *scorers)
        self._names = VmNames(vms)
        self._lock = asyncio.Lock()
        self._waiting: list[_Wanted] = []

    async def place(self, vm: Vm) -> Vm | None:
        """Place `vm`, or tell in it why nowhere; returns it as it is then."""
        mine = _Wanted(vm)
        self._waiting.append(mine)
        try:
            async with self._lock:
                # Whoever comes first does it for all that wait by then.
                if mine in self._waiting:
                    batch, self._waiting = self._waiting, []
                    await self._promise_all(batch)
            return await self._record(mine)
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)
            self._names.settle(self._vms.key_of(vm))

    async def _record(self, mine: _Wanted) -> Vm | None:
        vm, decision = mine.vm, mine.decision
        if mine.failure is not None:
            raise mine.failure
        if decision is None:
            raise Retry(UNAVAILABLE, "whoever was deciding for all was stopped", retry_after_s=0.1)
        if decision.node is None:
            return await self._tell(vm, False, "NoNode", decision.explain())
        placed = await self._write(vm, decision.node, decision.explain())
        for node in self._nodes.list():
            if placed is None or node.meta.name != placed.status.node:
                await self.withdraw(node.meta.name, vm.meta.id)
        return placed

    async def _promise_all(self, batch: Iterable[_Wanted]) -> None:
        """Decide for each in turn, then have each node promise what was decided."""
        nodes = {node.meta.name: node for node in self._nodes.list()}
        chosen: dict[str, list[_Wanted]] = defaultdict(list)
        for one in batch:
            one.decision = self._decide(one.vm, nodes.values())
            if (name := one.decision.node) is not None:
                need = capacity.need_of(one.vm)
                nodes[name], _ = capacity.with_all(nodes[name], {one.vm.meta.id: need})
                self._names.give(one.vm, name)
                chosen[name].append(one)
        for name, wanted in chosen.items():
            try:
                await self._claim(name, wanted)
            except Exception as error:  # noqa: BLE001 - each of them is told, as its own failure
                for one in wanted:
                    one.failure = error

    def _decide(self, vm: Vm, nodes: Iterable[Node]) -> Decision:
        spec = effective_spec(vm, self._names.that_matter(vm))
        project = vm.meta.project
        views = [view(node, vm.meta.id, self._names.on(project, node.meta.name)) for node in nodes]
        return place(spec, views, self._filters, self._scorers)

    async def _claim(self, name: str, wanted: Sequence[_Wanted]) -> None:
        """One write of the node for all; whom it has no room for is told so."""
        needs = {one.vm.meta.id: capacity.need_of(one.vm) for one in wanted}
        refused: dict[ResourceId, str] = {}

        def promise(node: Node) -> Node:
            promised, why_not = capacity.with_all(node, needs)
            refused.clear()
            refused.update(why_not)
            return promised

        await self._nodes.mutate(self._nodes.kind.key(None, name), promise)
        for one in wanted:
            if (why := refused.get(one.vm.meta.id)) is not None:
                one.failure = Retry(UNAVAILABLE, f"{name}: {why}", retry_after_s=0.1)

    async def _write(self, vm: Vm, node: str, why: str) -> Vm | None:
        now = self._clock.now()
        told = Condition(type="Scheduled", status="true", reason="Placed", message=f"on {node}")

        def give(current: Vm) -> Vm:
            taken = current.status.node is not None or current.meta.deleting_at is not None
            if taken or current.meta.id != vm.meta.id:
                return current
            return vm_status.tell(current.with_status(node=node, placement=why), told, now)

        return await self._vms.mutate(self._vms.key_of(vm), give)

    async def adjust(self, vm: Vm) -> bool:
        """Bring what is promised to a placed VM in line with what it asks for; False (and told
        in the VM) where its node has no room."""
        assert vm.status.node is not None
        need = capacity.need_of(vm)
        refusal: list[str] = []

        def promise(node: Node) -> Node:
            why = capacity.no_room(node, vm.meta.id, need)
            refusal[:] = [why] if why else []
            return node if why else capacity.with_promise(node, vm.meta.id, need)

        await self._nodes.mutate(self._nodes.kind.key(None, vm.status.node), promise)
        if refusal:
            await self._tell(vm, False, "NoRoom", f"{vm.status.node}: {refusal[0]}")
            return False
        await self._tell(vm, True, "Placed", f"on {vm.status.node}")
        return True

    async def withdraw(self, name: str, vm: ResourceId) -> None:
        """Take back what a node has promised to a VM."""
        key = self._nodes.kind.key(None, name)
        await self._nodes.mutate(key, lambda node: capacity.without_promise(node, vm))

    async def _tell(self, vm: Vm, ok: bool, reason: str, message: str) -> Vm | None:
        now = self._clock.now()
        told = Condition(
            type="Scheduled", status="true" if ok else "false", reason=reason, message=message
        )

        def change(current: Vm) -> Vm:
            if current.status.node is None and current.meta.deleting_at is None:
                current = current.with_status(placement=message, phase=Phase.PENDING)
            return vm_status.tell(current, told, now)

        return await self._vms.mutate(self._vms.key_of(vm), change)
