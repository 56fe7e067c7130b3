"""Gives a VM its node: decides by the pure filters and scorers, then claims, then tells.

The claim is a compare-and-swap of the node's ledger, checked again in that write. A claim that
was made before a crash, or lost against another leader's, is given back once the VM has a node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

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


class VmPlacement:
    """Places VMs, one after another: each decision sees the ones before it."""

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
        self._lock = asyncio.Lock()

    async def place(self, vm: Vm) -> Vm | None:
        """Place `vm`, or tell in it why nowhere; returns it as it is then."""
        async with self._lock:
            decision = self._decide(vm)
            if decision.node is None:
                return await self._tell(vm, False, "NoNode", decision.explain())
            await self._claim(decision.node, vm)
            placed = await self._write(vm, decision.node, decision.explain())
        for node in self._nodes.list():
            if placed is None or node.meta.name != placed.status.node:
                await self.withdraw(node.meta.name, vm.meta.id)
        return placed

    def _decide(self, vm: Vm) -> Decision:
        others = self._vms.list(vm.meta.project)
        spec = effective_spec(vm, others)
        views = [
            view(
                node,
                vm.meta.id,
                [o.meta.name for o in others if o.status.node == node.meta.name],
            )
            for node in self._nodes.list()
        ]
        return place(spec, views, self._filters, self._scorers)

    async def _claim(self, name: str, vm: Vm) -> None:
        need = capacity.need_of(vm)

        def promise(node: Node) -> Node:
            why = capacity.no_room(node, vm.meta.id, need)
            if why is not None:
                raise Retry(UNAVAILABLE, f"{name}: {why}", retry_after_s=0.1)
            return capacity.with_promise(node, vm.meta.id, need)

        await self._nodes.mutate(self._nodes.kind.key(None, name), promise)

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
