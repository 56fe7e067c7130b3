"""Puts the security service together: the only place that wires."""

from __future__ import annotations

from trivet.contracts.event import SUBJECT_PREFIX
from trivet.contracts.security.address_set import ADDRESS_SET
from trivet.contracts.security.alarms import ALARM, RULES
from trivet.contracts.security.firewall import FirewallBackend
from trivet.contracts.security.group import SECURITY_GROUP
from trivet.contracts.security.identity import PROJECT, ROLE, TOKEN, USER
from trivet.contracts.security.identity_provider import IdentityProvider
from trivet.runtime.alarms import keep_alarms
from trivet.runtime.service import Service
from trivet.runtime.wiring import wire_endpoints
from trivet.security.audit_trail import HEAD_PREFIX, PREFIX, AuditTrail
from trivet.security.controllers.default_groups import DefaultGroups
from trivet.security.controllers.first_start import FirstStart
from trivet.security.controllers.orphans import OrphanTokens
from trivet.security.controllers.port_counts import PortCounts
from trivet.security.controllers.quota_sweep import QuotaSweep
from trivet.security.domain.audit import repair_entry
from trivet.security.identity import Identities
from trivet.security.ledgers import PREFIX as LEDGERS
from trivet.security.ledgers import Ledgers
from trivet.security.node.firewall_agent import FirewallAgent
from trivet.security.node.firewall_log import FirewallLog
from trivet.security.parts import Parts, People


async def bootstrap(service: Service) -> None:
    """Open the drivers, and register endpoints, controllers and the agent."""
    runtime, names = service.runtime, service.runtime.settings.security
    people = People(
        projects=service.collection(PROJECT),
        roles=service.collection(ROLE),
        users=service.collection(USER),
        tokens=service.collection(TOKEN),
    )
    groups = service.collection(SECURITY_GROUP)
    trail = AuditTrail(runtime.store)
    service.feed.add(PREFIX, trail.take)
    service.feed.add(HEAD_PREFIX, trail.take_head)
    ledgers = Ledgers(runtime.store)
    service.feed.add(LEDGERS, ledgers.take)
    firewall: FirewallBackend = await runtime.driver("trivet_firewall_backends", names.firewall)
    service.on_close(firewall.close)
    address_sets = service.collection(ADDRESS_SET)

    async def repaired(by: str) -> None:
        await trail.append((repair_entry(runtime.node, by, runtime.clock.now()),))

    agent = FirewallAgent(runtime, groups, address_sets, firewall, repaired)
    service.agent("firewall", agent.run)
    firewall_log = FirewallLog(firewall)
    service.on_event(f"{SUBJECT_PREFIX}.network.port.>", agent.port_changed)
    identities = Identities(runtime, people, await _providers(service))
    service.agent("token use", identities.run)
    service.controller("first start", FirstStart(runtime, people, groups).run)
    service.controller("default groups", DefaultGroups(runtime, people, groups).run)
    sweep = QuotaSweep(runtime, people, ledgers)
    service.controller("quotas", sweep.run)
    service.on_event(f"{SUBJECT_PREFIX}.*.*.deleted.v1", sweep.deleted)
    service.controller("orphans", OrphanTokens(runtime, people).run)
    service.controller("port counts", PortCounts(runtime, groups).run)
    await keep_alarms(service, ALARM, RULES)
    wire_endpoints(
        service,
        Parts(
            runtime,
            people,
            groups,
            address_sets,
            trail,
            ledgers,
            identities,
            agent,
            firewall,
            firewall_log,
        ),
    )


async def _providers(service: Service) -> tuple[IdentityProvider, ...]:
    opened: list[IdentityProvider] = []
    for name in service.runtime.settings.security.identity:
        provider = await service.runtime.driver("trivet_identity_providers", name)
        service.on_close(provider.close)
        opened.append(provider)
    return tuple(opened)
