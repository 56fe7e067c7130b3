"""What guests say of themselves, kept in their VMs' status; and their clocks after a pause.

It asks the agent in each running guest from time to time, soon after it got ready, and writes only
what changed. A guest without an agent costs a look and no write.
"""

from __future__ import annotations

import logging

from trivet.compute.domain.vm_plan import NODE
from trivet.contracts.compute.guest_agent import AgentStatus, GuestAgent
from trivet.contracts.compute.hypervisor import Hypervisor
from trivet.contracts.compute.vm import Power, Vm
from trivet.contracts.errors import NOT_FOUND, NOT_SUPPORTED, Refused, Retry, TrivetError
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service

log = logging.getLogger(__name__)

WORKERS = 4
SOON_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""When a guest that got ready is looked at again, time after time: its agent comes a little
later, if it has one."""


def agent_of(hypervisor: Hypervisor) -> GuestAgent:
    """The driver's way to agents in guests. Raises `Refused(NOT_SUPPORTED)`."""
    if not isinstance(hypervisor, GuestAgent):
        raise Refused(NOT_SUPPORTED, f"{hypervisor.name} can't talk to agents in guests")
    return hypervisor


class GuestWatch:
    """Keeps `status.agent` of this node's VMs."""

    def __init__(self, service: Service, vms: Collection[Vm], hypervisor: GuestAgent) -> None:
        self._node = service.runtime.node
        self._vms = vms
        self._agent = hypervisor
        self._seen: dict[str, tuple[Power, bool]] = {}
        self._looks: dict[str, int] = {}
        self._resumed: set[str] = set()
        assigned = service.assigned()
        self._reconciler = Reconciler(
            "guest watch",
            self.look,
            clock=service.runtime.clock,
            keys=lambda: assigned.keys("vm"),
            bound=WORKERS,
            resync_s=service.runtime.settings.compute.look_s,
            calm=self._calm,
        )
        vms.on_change(self._changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._reconciler.run()

    def _changed(self, key: str) -> None:
        """Look when a guest starts, gets ready, is paused, runs on, or ends."""
        vm = self._vms.by_key(key)
        if vm is None or not self._is_ours(vm):
            self._seen.pop(key, None)
            self._looks.pop(key, None)
            self._resumed.discard(key)
            return
        now = (vm.status.power, vm.status.guest_ready)
        was = self._seen.get(key)
        self._seen[key] = now
        if was is None or was == now:
            return
        self._looks[key] = 0
        if was[0] is Power.PAUSED and now[0] is Power.RUNNING:
            self._resumed.add(key)
        self._reconciler.wake(key)

    def _calm(self, key: str) -> bool:
        """Whether there is nobody to ask, and that is on record."""
        vm = self._vms.by_key(key)
        if vm is None or not self._is_ours(vm) or vm.status.power is Power.UNKNOWN:
            return True
        return vm.status.power is not Power.RUNNING and vm.status.agent == AgentStatus()

    def _is_ours(self, vm: Vm) -> bool:
        held = vm.status.node == self._node and NODE in vm.meta.finalizers
        return held and vm.meta.deleting_at is None

    async def look(self, key: str) -> float | None:
        """Ask one guest; returns when to look again (seconds)."""
        vm = self._vms.by_key(key)
        if vm is None or not self._is_ours(vm) or vm.status.power is Power.UNKNOWN:
            return None
        if vm.status.power is Power.PAUSED:
            return None  # it can't answer, and what it said still holds
        said = await self._ask(vm) if vm.status.power is Power.RUNNING else AgentStatus()
        if said is None:
            return None
        if said.connected and key in self._resumed:
            self._resumed.discard(key)
            await self._set_time(vm)
        if said != vm.status.agent:
            await self._vms.mutate(key, lambda v: v.with_status(agent=said))
        looks = self._looks[key] = self._looks.get(key, 0) + 1
        waits = vm.status.guest_ready and not said.connected and looks <= len(SOON_S)
        return SOON_S[looks - 1] if waits else None

    async def _ask(self, vm: Vm) -> AgentStatus | None:
        """How the agent is; None where it can't be said now."""
        try:
            report = await self._agent.report(vm.meta.id)
        except Refused as error:
            if error.code is not NOT_FOUND:
                raise
            return AgentStatus()
        except Retry as error:
            log.debug("the agent in %s does not answer: %s", vm.meta.name, error)
            return None
        return AgentStatus(connected=True, **dict(report)) if report else AgentStatus()

    async def _set_time(self, vm: Vm) -> None:
        try:
            await self._agent.set_time(vm.meta.id)
        except TrivetError as error:
            log.warning("the clock of %s was not set after its pause: %s", vm.meta.name, error)
