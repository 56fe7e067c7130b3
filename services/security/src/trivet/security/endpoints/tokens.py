"""The common operations on tokens: seen without their hash, revoked by deleting."""

from __future__ import annotations

from trivet.contracts.access import Caller
from trivet.contracts.security.endpoints.tokens import CRUD
from trivet.contracts.security.identity import Token
from trivet.runtime.crud import Hooks, admit_anything
from trivet.runtime.service import Service
from trivet.security.domain.access import grants_of, may_give
from trivet.security.guarded import serve_guarded
from trivet.security.parts import Parts


def blanked(token: Token) -> Token:
    """The token as it may leave the service."""
    return token.with_status(hash="", previous_hash="")


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations."""
    people = parts.people

    def hooks_for(caller: Caller) -> Hooks[Token]:
        async def may_delete(token: Token) -> None:
            user = people.users.get(token.spec.user)
            if user is not None:
                held = grants_of(user.spec.roles, people.roles_now())
                may_give(caller, held, f"token {token.meta.name}")

        return Hooks(admit_anything, may_delete=may_delete, shown=blanked)

    serve_guarded(service, people, CRUD, hooks_for)
