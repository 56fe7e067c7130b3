"""The common operations on users: nobody gives or takes rights that it does not have."""

from __future__ import annotations

from trivet.contracts.access import Caller
from trivet.contracts.security.endpoints.users import CRUD
from trivet.contracts.security.identity import User
from trivet.runtime.crud import Hooks
from trivet.runtime.service import Service
from trivet.security.domain.access import (
    check_references,
    grants_of,
    keep_an_administrator,
    may_give,
)
from trivet.security.guarded import serve_guarded
from trivet.security.parts import Parts, People


class _Users:
    """The rules for one caller."""

    def __init__(self, people: People, caller: Caller) -> None:
        self._people = people
        self._caller = caller

    async def admit(self, before: User | None, after: User) -> User:
        """Check what the user is to hold, and that an administrator is left."""
        roles = self._people.roles_now()
        check_references(after.spec.roles, roles, self._people.projects_now())
        what = f"user {after.meta.name}"
        may_give(self._caller, grants_of(after.spec.roles, roles), what)
        if before is not None:
            may_give(self._caller, grants_of(before.spec.roles, roles), what)
            self._keep(after.meta.name, (after,))
        return after

    async def may_delete(self, user: User) -> None:
        """Refused for who has more rights than the caller, and for the last administrator."""
        held = grants_of(user.spec.roles, self._people.roles_now())
        may_give(self._caller, held, f"user {user.meta.name}")
        self._keep(user.meta.name, ())

    def _keep(self, name: str, instead: tuple[User, ...]) -> None:
        users, roles = self._people.users.list(), self._people.roles_now()
        others = [u for u in users if u.meta.name != name]
        keep_an_administrator(users, (*others, *instead), roles, roles)


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations."""

    def hooks_for(caller: Caller) -> Hooks[User]:
        rules = _Users(parts.people, caller)
        return Hooks(rules.admit, may_delete=rules.may_delete)

    serve_guarded(service, parts.people, CRUD, hooks_for)
