"""The common operations on roles. Who makes or changes one holds its rights in the cluster.

So a role can't grow beyond its maker after somebody was given it.
"""

from __future__ import annotations

from trivet.contracts.access import CLUSTER, Caller, Grant
from trivet.contracts.errors import IMMUTABLE, IN_USE, NAME_TAKEN, Refused
from trivet.contracts.security.endpoints.roles import CRUD
from trivet.contracts.security.identity import Role
from trivet.runtime.crud import Hooks
from trivet.runtime.service import Service
from trivet.security.domain.access import check_patterns, may_give
from trivet.security.domain.roles import BUILTIN
from trivet.security.guarded import serve_guarded
from trivet.security.parts import Parts, People


class _Roles:
    """The rules for one caller."""

    def __init__(self, people: People, caller: Caller) -> None:
        self._people = people
        self._caller = caller

    async def admit(self, before: Role | None, after: Role) -> Role:
        """Check the patterns, and that the caller holds what the role gives and gave."""
        name = after.meta.name
        if before is None and name in BUILTIN:
            raise Refused(NAME_TAKEN, f"the role {name} is built in")
        check_patterns(after.spec.permissions)
        self._holds(after)
        if before is not None:
            self._changeable(before)
        return after

    async def may_delete(self, role: Role) -> None:
        """Refused for built-in roles and for those that somebody holds."""
        self._changeable(role)
        name = role.meta.name
        holders = [
            u.meta.name for u in self._people.users.list() if name in {b.role for b in u.spec.roles}
        ]
        if holders:
            named = ", ".join(holders[:5])
            raise Refused(IN_USE, f"role {name} is held by {len(holders)} users: {named}")

    def _changeable(self, role: Role) -> None:
        if role.meta.name in BUILTIN:
            hint = "make a role of your own"
            raise Refused(IMMUTABLE, f"the role {role.meta.name} is built in", hint=hint)
        self._holds(role)

    def _holds(self, role: Role) -> None:
        given = Grant(project=CLUSTER, permissions=role.spec.permissions)
        may_give(self._caller, (given,), f"role {role.meta.name}")


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations."""

    def hooks_for(caller: Caller) -> Hooks[Role]:
        rules = _Roles(parts.people, caller)
        return Hooks(rules.admit, may_delete=rules.may_delete)

    serve_guarded(service, parts.people, CRUD, hooks_for)
