"""What the service's bootstrap made, for the handlers of its operations."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trivet.contracts.resource import Phase
from trivet.contracts.security.address_set import AddressSet
from trivet.contracts.security.firewall import FirewallBackend
from trivet.contracts.security.group import SecurityGroup
from trivet.contracts.security.identity import Project, Role, Token, User
from trivet.runtime.collection import Collection
from trivet.runtime.service import Runtime
from trivet.security.audit_trail import AuditTrail
from trivet.security.ledgers import Ledgers
from trivet.security.node.firewall_agent import FirewallAgent
from trivet.security.node.firewall_log import FirewallLog

if TYPE_CHECKING:
    from trivet.security.identity import Identities


@dataclass(frozen=True)
class People:
    """Who there is and what they hold. `lock` is held over a look at who may do what and the
    change that was allowed by it."""

    projects: Collection[Project]
    roles: Collection[Role]
    users: Collection[User]
    tokens: Collection[Token]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def roles_now(self) -> dict[str, Role]:
        """The roles by name."""
        return {r.meta.name: r for r in self.roles.list() if r.status.phase is not Phase.DELETING}

    def projects_now(self) -> set[str]:
        """The names of the projects that are there to stay."""
        return {p.meta.name for p in self.projects.list() if p.meta.deleting_at is None}


@dataclass(frozen=True)
class Parts:
    """The parts of a security service."""

    runtime: Runtime
    people: People
    groups: Collection[SecurityGroup]
    address_sets: Collection[AddressSet]
    trail: AuditTrail
    ledgers: Ledgers
    identities: Identities
    agent: FirewallAgent
    firewall: FirewallBackend
    firewall_log: FirewallLog
