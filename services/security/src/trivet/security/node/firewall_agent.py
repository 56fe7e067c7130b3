"""The node's agent: keeps the firewall at this node's ports what their groups say.

The network's agent says which ports are here; this one keeps that in memory, and makes the
ruleset anew whenever it is told, when a group changes, and when what is in force is not what is
wanted. Whom rules mean by a group's name it asks of the network's agent beside it, which knows
all ports; events of ports only wake it. Until it knows the ports it leaves alone what is in
force: rules outlive this service, and a port without rules passes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from trivet.contracts.endpoint import Nothing
from trivet.contracts.errors import TrivetError
from trivet.contracts.event import CloudEvent
from trivet.contracts.network.endpoints.node_bindings import ENDPOINT as BINDINGS
from trivet.contracts.network.endpoints.node_members import ENDPOINT as MEMBERS
from trivet.contracts.network.endpoints.node_members import GroupName, MembersRequest
from trivet.contracts.resource import Phase
from trivet.contracts.security.address_set import AddressSet
from trivet.contracts.security.endpoints.node_protect import ProtectResponse
from trivet.contracts.security.firewall import (
    AddressList,
    Binding,
    FirewallBackend,
    Ruleset,
    Watchful,
)
from trivet.contracts.security.group import GROUP_PREFIX, SET_PREFIX, SecurityGroup
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Runtime
from trivet.security.domain.firewall import (
    Assembled,
    GroupKey,
    ListKey,
    Readings,
    assemble,
    drifted,
    group_keys,
    list_keys,
)

log = logging.getLogger(__name__)

THE_NODE = "node"
LOOK_AGAIN_S = 1.0
SOON_S = 0.1

MEMBERS_CHANGE_ON = ("created", "edited", "deleted")
"""What a port's event must tell to concern groups; that it begins to go (its phase) does too."""

Told = Callable[[str], Awaitable[None]]


class FirewallAgent:
    """The security agent of one node."""

    def __init__(
        self,
        runtime: Runtime,
        groups: Collection[SecurityGroup],
        address_sets: Collection[AddressSet],
        backend: FirewallBackend,
        repaired: Told,
    ) -> None:
        self._runtime = runtime
        self._groups = groups
        self._address_sets = address_sets
        self._backend = backend
        self._repaired = repaired
        self._members: dict[ListKey, AddressList] = {}
        self._read = Readings()
        self._ports_changed = False
        self._disturbed_by = ""
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
        address_sets.on_change(lambda _: self._reconciler.wake(THE_NODE))

    async def run(self) -> None:
        """Keep the firewall as wanted."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reconciler.run())
            if isinstance(self._backend, Watchful):
                group.create_task(self._watch(self._backend))

    async def _watch(self, backend: Watchful) -> None:
        while True:
            self._disturbed_by = await backend.disturbed()
            self._reconciler.wake(THE_NODE)
            await self._runtime.clock.sleep(LOOK_AGAIN_S)

    async def port_changed(self, event: CloudEvent) -> None:
        """Ports came or went somewhere: they may be members of groups that rules here name."""
        told = event.type.split(".")[3]
        if told not in MEMBERS_CHANGE_ON and event.data.phase != Phase.DELETING:
            return
        if not self._ports_changed:
            # Soon and not at once: where one port comes there are often many.
            self._ports_changed = True
            asyncio.get_running_loop().call_later(SOON_S, self._reconciler.wake, THE_NODE)

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
            changed, self._ports_changed = self._ports_changed, False
            await self._enforce(self._bindings)
        # The network agent's copy may be behind the event: one more look makes sure.
        return LOOK_AGAIN_S if changed else None

    async def _enforce(self, bindings: tuple[Binding, ...]) -> Assembled:
        """Apply the ruleset where it is another than the last, or not what is in force."""
        groups = await self._groups_of(bindings)
        used = [groups[key] for key in group_keys(bindings) if key in groups]
        lists = await self._lists(list_keys(used, self._read))
        wanted = assemble(bindings, groups, lists, self._read)
        self._read.keep(used)
        lost = drifted(wanted.ruleset, await self._backend.state())
        if lost or wanted.ruleset != self._applied:
            again = lost and wanted.ruleset == self._applied
            self._applied = None
            await self._backend.apply(wanted.ruleset)
            self._applied = wanted.ruleset
            if again:
                by, self._disturbed_by = self._disturbed_by or "somebody", ""
                log.warning("the firewall's rules were changed by %s: put back", by)
                await self._repaired(by)
        return wanted

    async def _groups_of(self, bindings: tuple[Binding, ...]) -> dict[GroupKey, SecurityGroup]:
        groups = {(g.meta.project or "", g.meta.name): g for g in self._groups.list()}
        for project, name in sorted(group_keys(bindings) - groups.keys()):
            # It may have been made a moment ago, by another instance.
            made = await self._groups.fresh(self._groups.kind.key(project, name))
            if made is not None:
                groups[project, name] = made
        return groups

    async def _lists(self, keys: set[ListKey]) -> dict[ListKey, AddressList]:
        """What rules mean by the names of groups and address sets now."""
        lists: dict[ListKey, AddressList] = {}
        asked: list[GroupName] = []
        for project, name in sorted(keys):
            if name.startswith(GROUP_PREFIX):
                asked.append(GroupName(project=project, name=name.removeprefix(GROUP_PREFIX)))
                continue
            key = self._address_sets.kind.key(project, name.removeprefix(SET_PREFIX))
            found = self._address_sets.by_key(key) or await self._address_sets.fresh(key)
            if found is not None:
                lists[project, name] = AddressList(
                    project=project, name=name, addresses=found.spec.addresses
                )
        return lists | await self._members_of(asked)

    async def _members_of(self, groups: list[GroupName]) -> dict[ListKey, AddressList]:
        """As this node's network agent knows them; while it is away, as it last said."""
        if not groups:
            return {}
        try:
            answer = await self._runtime.client.call(
                MEMBERS, MembersRequest(groups=tuple(groups)), node=self._runtime.node
            )
        except TrivetError as error:
            wanted = {(g.project, f"{GROUP_PREFIX}{g.name}") for g in groups}
            if not wanted <= self._members.keys():
                raise
            log.info("the members of groups can't be asked for: %s", error)
            return {key: self._members[key] for key in wanted}
        self._members = {(found.project, found.name): found for found in answer.lists}
        return self._members
