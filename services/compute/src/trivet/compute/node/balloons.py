"""Guests with a floor give memory back while this node is short of it, and get it again.

It looks from time to time, plans by `domain/ballooning.py`, asks the guests and says so in their
status. A guest whose run began anew has all of its memory, whatever was asked of the one before.
"""

from __future__ import annotations

import logging

from trivet.compute.domain.ballooning import Guest, targets
from trivet.compute.domain.vm_plan import NODE
from trivet.contracts.compute.balloon import Balloon
from trivet.contracts.compute.node import Node
from trivet.contracts.compute.stats import Statistics
from trivet.contracts.compute.vm import BalloonStatus, Power, Vm
from trivet.contracts.errors import TrivetError
from trivet.contracts.model import ResourceId
from trivet.runtime.collection import Collection
from trivet.runtime.service import Service

log = logging.getLogger(__name__)

LOOK_S = 5.0
KIB_PER_MIB = 1024


class Balloons:
    """Keeps this node's guests from using what the node itself needs."""

    def __init__(
        self,
        service: Service,
        vms: Collection[Vm],
        nodes: Collection[Node],
        balloon: Balloon,
        statistics: Statistics,
    ) -> None:
        self._runtime = service.runtime
        self._vms = vms
        self._nodes = nodes
        self._balloon = balloon
        self._statistics = statistics

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                await self.look()
            except TrivetError as error:
                log.info("no look at the guests' memory: %s", error)
            await self._runtime.clock.sleep(LOOK_S)

    async def look(self) -> None:
        """Look once, and ask for what is to change."""
        node = self._nodes.get(self._runtime.node)
        vms = {vm.meta.id: vm for vm in self._vms.list() if self._can_give(vm)}
        if node is None or not vms:
            return
        guests = [g for vm in vms.values() if (g := await self._guest(vm)) is not None]
        host = await self._balloon.host_memory()
        for id_, target in targets(host, node.spec.reserved_memory_mib, guests).items():
            await self._ask(vms[id_], target)

    def _can_give(self, vm: Vm) -> bool:
        ours = vm.status.node == self._runtime.node and NODE in vm.meta.finalizers
        runs = vm.status.power is Power.RUNNING and vm.status.guest_ready
        return ours and runs and vm.spec.memory_min_mib is not None

    async def _guest(self, vm: Vm) -> Guest | None:
        has, floor_mib = vm.status.runs_with, vm.spec.memory_min_mib
        if has is None or floor_mib is None:
            return None
        try:
            stats = await self._statistics.stats(vm.meta.id)
        except TrivetError as error:
            log.debug("%s does not tell what it uses: %s", vm.meta.name, error)
            return None
        asked = vm.status.balloon
        this_run = asked is not None and asked.epoch == vm.status.epoch
        target_mib = min(asked.target_mib, has.memory_mib) if asked and this_run else None
        available = stats.available_kib
        return Guest(
            vm.meta.id,
            most_mib=has.memory_mib,
            floor_mib=min(floor_mib, has.memory_mib),
            target_mib=target_mib or has.memory_mib,
            available_mib=None if available is None else available // KIB_PER_MIB,
        )

    async def _ask(self, vm: Vm, target_mib: int) -> None:
        """On record first: after a crash in between the next look goes on from there."""
        told = BalloonStatus(target_mib=target_mib, epoch=vm.status.epoch)
        log.info("%s is asked to use %d MiB", vm.meta.name, target_mib)

        def record(current: Vm) -> Vm:
            same = current.status.epoch == vm.status.epoch
            return current.with_status(balloon=told) if same else current

        await self._vms.mutate(self._vms.key_of(vm), record)
        await self._balloon.set_target(ResourceId(vm.meta.id), target_mib)
