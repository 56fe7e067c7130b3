"""The duty of a node's agent towards its VMs: look, plan, act, until nothing is left to do.

Driver events, changes in the store and assignments only wake it; a slow look at everything
finds what was missed. One worker a VM. It touches VMs that are placed here and that the
controller has handed over, and no others; `sweep` tells of domains that are nobody's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta

from trivet.compute.domain import vm_status
from trivet.compute.domain.node_plan import plan
from trivet.compute.domain.orphans import Fate, fate
from trivet.compute.domain.situation import Seen
from trivet.compute.domain.vm_plan import NODE
from trivet.compute.node.domains import Domains
from trivet.compute.node.records import Memory
from trivet.compute.node.vm_effects import VmEffects
from trivet.contracts.compute.definitions import Definitions
from trivet.contracts.compute.endpoints.vm_stop import LONGEST_GRACE_S
from trivet.contracts.compute.hypervisor import Act, DomainEvent, DomainState, Hypervisor
from trivet.contracts.compute.node import Node
from trivet.contracts.compute.vm import Power, Vm
from trivet.contracts.errors import CONFLICT, TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Condition
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service

log = logging.getLogger(__name__)

STEPS_BOUND = 30
WORKERS = 16
DRAIN_LOOK_S = 0.2
DRAIN_EXTRA_S = 30.0


class VmAgent:
    """Runs this node's VMs."""

    def __init__(
        self, service: Service, vms: Collection[Vm], nodes: Collection[Node], hypervisor: Hypervisor
    ) -> None:
        self._runtime = service.runtime
        self._assignments = service.assignments
        self._assigned = service.assigned()
        self._vms = vms
        self._nodes = nodes
        self._hypervisor = hypervisor
        self._domains = Domains(hypervisor)
        self._effects = VmEffects(self._runtime, vms, nodes, hypervisor)
        self._memory: dict[str, Memory] = {}
        self._draining = False
        self._reported: frozenset[str] = frozenset()
        self._reconciler = Reconciler(
            "vm agent",
            self.reconcile,
            clock=self._runtime.clock,
            keys=lambda: self._assigned.keys("vm"),
            bound=WORKERS,
            resync_s=self._runtime.settings.compute.look_s,
            survey=self._survey,
            calm=self._calm,
        )
        self._surveyed: Mapping[ResourceId, DomainState] | None = None
        hypervisor.listen(self._heard)
        self._assigned.on_change(self._pointed)
        vms.on_change(self._changed)
        nodes.on_change(self._node_changed)
        self._cpu_ledger = (0, 0)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._reconciler.run()

    async def run_sweeps(self) -> None:
        """Look for domains that are nobody's, from time to time, until cancelled."""
        while True:
            await self.sweep()
            await self._runtime.clock.sleep(self._runtime.settings.compute.look_s)

    def wake_all(self) -> None:
        """Look at all VMs of this node soon."""
        for key in self._assigned.keys("vm"):
            self._reconciler.wake(key)

    def _heard(self, event: DomainEvent) -> None:
        vm = self._vms.by_id(event.id)
        if vm is not None:
            self._reconciler.wake(self._vms.key_of(vm))

    def _pointed(self, kind: str, key: str) -> None:
        if kind == "vm":
            self._reconciler.wake(key)

    def _changed(self, key: str) -> None:
        vm = self._vms.by_key(key)
        if vm is not None and self._is_ours(vm):
            self._reconciler.wake(key)

    def _node_changed(self, key: str) -> None:
        """Processors that become a VM's own, or are reserved, concern the others too."""
        node = self._nodes.by_key(key)
        if node is None or node.meta.name != self._runtime.node:
            return
        was = self._cpu_ledger
        self._cpu_ledger = (node.status.allocatable_cpu_pct, node.status.used_cpu_pct)
        if was != self._cpu_ledger and was[0]:
            self.wake_all()

    def _is_ours(self, vm: Vm) -> bool:
        return vm.status.node == self._runtime.node and NODE in vm.meta.finalizers

    async def reconcile(self, key: str) -> float | None:
        """Bring one VM to where nothing is left to do; returns when to look again (seconds)."""
        prepared, sure = None, False
        for _ in range(STEPS_BOUND):
            vm = self._vms.by_key(key)
            if vm is None or not self._is_ours(vm):
                return None
            memory = self._memory.setdefault(vm.meta.id, Memory())
            seen = await self._look(vm, memory)
            step = plan(vm, Seen(**{**vars(seen), "prepared": prepared}), self._runtime.clock.now())
            if step.actions and not sure:
                # The copy will do to see that all is well; before anything is done, the store
                # says where the VM is. Own writes after that are in the copy.
                await self._vms.fresh(key)
                sure = True
                continue
            if step.actions:
                log.debug("%s: %s: %s", vm, step.rule, step.why)
            try:
                for action in step.actions:
                    prepared = await self._effects.apply(vm, action, memory, prepared)
            except TrivetError as error:
                if error.code is not CONFLICT:
                    await self._effects.records.tell_failure(vm, error)
                raise
            if step.idle or step.rule == "unreachable":
                return step.look_s
        log.warning("%s is not settled after %d steps; last: %s", vm, STEPS_BOUND, step.rule)
        return 1.0

    async def _survey(self) -> None:
        """See all domains at once, for the look at all VMs that follows."""
        self._surveyed = None
        try:
            self._surveyed = await self._domains.look()
        except TrivetError as error:
            log.info("the hypervisor does not answer: %s", error)

    def _calm(self, key: str) -> bool:
        """Whether nothing is to be done for a VM, by what was seen of all."""
        vm = self._vms.by_key(key)
        if vm is None or not self._is_ours(vm):
            return True
        if self._surveyed is None:
            return False
        memory = self._memory.get(vm.meta.id) or Memory()
        seen = self._seen(vm, memory, self._surveyed.get(vm.meta.id))
        step = plan(vm, seen, self._runtime.clock.now())
        return not step.actions and step.look_s is None

    async def _look(self, vm: Vm, memory: Memory) -> Seen:
        try:
            domain = await self._domains.look_at(vm.meta.id)
        except TrivetError as error:
            return Seen(unreachable=error.detail, draining=self._draining)
        return self._seen(vm, memory, domain)

    def _seen(self, vm: Vm, memory: Memory, domain: DomainState | None) -> Seen:
        clock, status = self._runtime.clock, vm.status
        return Seen(
            domain=domain,
            draining=self._draining,
            detached=memory.detached,
            asked_at=memory.asked_at,
            resumed_at=memory.resumed_at,
            resumes=memory.resumes,
            asked_off=memory.asked_off,
            can_plug=self._effects.can_plug,
            tuning=self._effects.tuning(vm),
            stop_left_s=memory.stop.left_s(status.stop_by, clock, LONGEST_GRACE_S),
            restart_left_s=memory.restart.left_s(
                status.restart_at, clock, vm_status.restart_delay_s(status.crashes)
            ),
        )

    # --- domains that are nobody's ----------------------------------------------------------

    async def sweep(self) -> None:
        """Remove domains that the store says are gone, and tell of those it does not know."""
        strangers: dict[str, str] = {}
        domains = await self._domains.look()
        for domain in domains.values():
            vm = self._vms.by_id(domain.id)
            assigned = self._assigned.has("vm", domain.id)
            verdict, why = fate(domain, vm, self._runtime.node, assigned)
            if verdict is Fate.REMOVE:
                log.warning("domain %s (%s) is removed: %s", domain.name, domain.id, why)
                await self._remove(domain)
            elif verdict is Fate.REPORT:
                strangers[domain.id] = f"{domain.name} ({domain.id}): {why}"
        known = self._memory.keys() & {vm.meta.id for vm in self._vms.list()}
        self._memory = {id_: self._memory[id_] for id_ in known}
        if frozenset(strangers) != self._reported:
            await self._report(strangers)
        await self._drop_pointers(frozenset(domains))
        if isinstance(self._hypervisor, Definitions):
            await self._restore(self._hypervisor)

    async def _restore(self, definitions: Definitions) -> None:
        """Put back what somebody else changed of what our domains start with, and tell it."""
        for id_ in await definitions.altered():
            vm = self._vms.by_id(id_)
            if vm is None or not self._is_ours(vm):
                continue
            log.warning("%s: what it starts with was changed by somebody else; put back", vm)
            await definitions.restore(id_)
            await self._effects.records.tell_restored(vm)

    async def _drop_pointers(self, domains: frozenset[str]) -> None:
        """Drop this node's pointers to VMs that the store positively lacks, of which nothing is
        here either: there is no work with them."""
        for pointer in self._assigned.pointers("vm"):
            if pointer.id in domains or self._vms.by_id(pointer.id) is not None:
                continue
            found = await self._vms.fresh(pointer.key)
            if found is None or found.meta.id != pointer.id:
                log.warning("a pointer to %s, which does not exist, is dropped", pointer.id)
                await self._assignments.release(self._runtime.node, "vm", pointer.id)

    async def _remove(self, domain: DomainState) -> None:
        if domain.power is not Power.STOPPED:
            await self._hypervisor.act(domain.id, Act.DESTROY)
        await self._hypervisor.undefine(domain.id)
        await self._assignments.release(self._runtime.node, "vm", domain.id)

    async def _report(self, strangers: dict[str, str]) -> None:
        for told in strangers.values():
            log.warning("a domain that is left alone: %s", told)
        condition = Condition(
            type="Orphans",
            status="true" if strangers else "false",
            reason="DomainsUnknown" if strangers else "None",
            message="; ".join(strangers.values()),
        )
        now = self._runtime.clock.now()
        key = self._nodes.kind.key(None, self._runtime.node)
        done = await self._nodes.mutate(
            key, lambda n: n.model_copy(update={"status": n.status.with_condition(condition, now)})
        )
        if done is not None:
            self._reported = frozenset(strangers)

    # --- going down -------------------------------------------------------------------------

    async def drain(self, grace_s: int) -> tuple[int, int]:
        """Stop all guests, for the node goes down; what is asked of them stays as it is, and
        none starts again before this agent does. Returns how many went off, and how many of
        them by force."""
        self._draining = True
        clock = self._runtime.clock
        active = await self._active()
        by = clock.now() + timedelta(seconds=grace_s)
        for vm in active:
            memory = self._memory.setdefault(vm.meta.id, Memory())
            memory.forced = False
            left_s = memory.stop.left_s(vm.status.stop_by, clock, LONGEST_GRACE_S)
            if left_s is not None and left_s <= grace_s:
                continue
            # On record before the guest is asked: else it would seem to have gone by itself.
            await self._vms.mutate(self._vms.key_of(vm), lambda v: v.with_status(stop_by=by))
        self.wake_all()
        until = clock.monotonic() + grace_s + DRAIN_EXTRA_S
        left = active
        while left and clock.monotonic() < until:
            await clock.sleep(DRAIN_LOOK_S)
            left = await self._active()
        remaining = {vm.meta.id for vm in left}
        stopped = [vm for vm in active if vm.meta.id not in remaining]
        return len(stopped), sum(self._memory[vm.meta.id].forced for vm in stopped)

    async def _active(self) -> list[Vm]:
        domains = await self._domains.look()
        found = [self._vms.by_id(d.id) for d in domains.values() if d.power is not Power.STOPPED]
        return [vm for vm in found if vm is not None and self._is_ours(vm)]
