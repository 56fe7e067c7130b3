"""The common operations on users: nobody gives or takes rights that it does not have.

An administrator is always left. Who takes one away names another as witness, and touches that
one's record: of two instances that each take away the other's witness, one meets a conflict,
and then finds no witness any more.
"""

from __future__ import annotations

from trivet.contracts.access import Caller
from trivet.contracts.security.endpoints.users import CRUD
from trivet.contracts.security.identity import User
from trivet.runtime.crud import Hooks
from trivet.runtime.service import Service
from trivet.security.domain.access import (
    administers,
    check_references,
    grants_of,
    last_administrator,
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
            await self._keep(before, after)
        return after

    async def may_delete(self, user: User) -> None:
        """Refused for who has more rights than the caller, and for the last administrator."""
        held = grants_of(user.spec.roles, self._people.roles_now())
        may_give(self._caller, held, f"user {user.meta.name}")
        await self._keep(user, None)

    async def _keep(self, before: User, after: User | None) -> None:
        if not administers(before) or (after is not None and administers(after)):
            return
        users = self._people.users
        others = [k for k in map(users.key_of, users.list()) if k != users.key_of(before)]
        for key in others:
            witness = await users.fresh(key)
            if witness is not None and administers(witness):
                await users.touch(witness)
                return
        raise last_administrator()


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations."""

    def hooks_for(caller: Caller) -> Hooks[User]:
        rules = _Users(parts.people, caller)
        return Hooks(rules.admit, may_delete=rules.may_delete)

    serve_guarded(service, parts.people, CRUD, hooks_for)
