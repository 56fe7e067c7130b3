"""The node's agent: keeps the firewall at this node's ports what their groups say.

The network's agent says which ports are here; this one keeps that in memory, and makes the
ruleset anew whenever it is told, when a group changes, and when what is in force is not what is
wanted. Until it knows the ports it leaves alone what is in force: rules outlive this service,
and a port without rules passes nothing.
"""

from __future__ import annotations

import asyncio
import logging

from trivet.contracts.endpoint import Nothing
from trivet.contracts.network.endpoints.node_bindings import ENDPOINT as BINDINGS
from trivet.contracts.security.endpoints.node_protect import ProtectResponse
from trivet.contracts.security.firewall import Binding, FirewallBackend, Ruleset
from trivet.contracts.security.group import SecurityGroup
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Runtime
from trivet.security.domain.firewall import Assembled, assemble, drifted, group_keys

log = logging.getLogger(__name__)

THE_NODE = "node"


class FirewallAgent:
    """The security agent of one node."""

    def __init__(
        self, runtime: Runtime, groups: Collection[SecurityGroup], backend: FirewallBackend
    ) -> None:
        self._runtime = runtime
        self._groups = groups
        self._backend = backend
        self._bindings: tuple[Binding, ...] | None = None
        self._applied: Ruleset | None = None
        self._lock = asyncio.Lock()
        self._reconciler = Reconciler(
            "firewall",
            self._reconcile,
            clock=runtime.clock,
            keys=lambda: [THE_NODE],
            bound=1,
            resync_s=runtime.settings.security.look_s,
        )
        groups.on_change(lambda _: self._reconciler.wake(THE_NODE))

    async def run(self) -> None:
        """Keep the firewall as wanted."""
        await self._reconciler.run()

    async def protect(self, bindings: tuple[Binding, ...]) -> ProtectResponse:
        """Put these ports' rules in force now; raises where the firewall could not be changed."""
        async with self._lock:
            self._bindings = bindings
            wanted = await self._enforce(bindings)
        return ProtectResponse(protected=wanted.protected, reasons=dict(wanted.reasons))

    async def _reconcile(self, _: str) -> float | None:
        if self._bindings is None:
            answer = await self._runtime.client.call(BINDINGS, Nothing(), node=self._runtime.node)
        async with self._lock:
            if self._bindings is None:
                self._bindings = answer.bindings
            await self._enforce(self._bindings)
        return None

    async def _enforce(self, bindings: tuple[Binding, ...]) -> Assembled:
        """Apply the ruleset where it is another than the last, or not what is in force."""
        groups = {(g.meta.project or "", g.meta.name): g for g in self._groups.list()}
        for project, name in sorted(group_keys(bindings) - groups.keys()):
            # It may have been made a moment ago, by another instance.
            made = await self._groups.fresh(self._groups.kind.key(project, name))
            if made is not None:
                groups[project, name] = made
        wanted = assemble(bindings, groups)
        lost = drifted(wanted.ruleset, await self._backend.state())
        if lost or wanted.ruleset != self._applied:
            if lost and wanted.ruleset == self._applied:
                log.warning("the firewall's rules were changed by somebody else: put back")
            self._applied = None
            await self._backend.apply(wanted.ruleset)
            self._applied = wanted.ruleset
        return wanted
