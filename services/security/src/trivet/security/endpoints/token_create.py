"""Makes a token, for oneself or for somebody who has no more rights than oneself."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import datetime

from trivet.contracts.endpoint import CreateRequest
from trivet.contracts.errors import INVALID, REFERENCE, FieldError, Refused
from trivet.contracts.resource import OwnerRef
from trivet.contracts.security.endpoints.token_create import ENDPOINT, TokenCreated
from trivet.contracts.security.identity import TOKEN, Token, TokenSpec, User
from trivet.runtime.call import Call
from trivet.runtime.crud import CrudHandlers, Hooks
from trivet.runtime.service import Service
from trivet.security.domain.access import check_patterns, grants_of, may_give
from trivet.security.domain.tokens import SECRET_BYTES, of_record
from trivet.security.endpoints.tokens import blanked
from trivet.security.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""
    people = parts.people

    async def create(request: CreateRequest[TokenSpec], call: Call) -> TokenCreated:
        _check_expiry(request.spec.expires_at, parts.runtime.clock.now())
        check_patterns(request.spec.permissions or (), "spec.permissions")
        secret = secrets.token_urlsafe(SECRET_BYTES)

        async def admit(before: Token | None, after: Token) -> Token:
            user = people.users.get(after.spec.user)
            if user is None or user.meta.deleting_at is not None:
                raise _no_user(after.spec.user)
            held = grants_of(user.spec.roles, people.roles_now())
            may_give(call.caller, held, f"a token of {user.meta.name}")
            mine = after.with_meta(owner=_owner(user))
            return mine.with_status(hash=of_record(after.meta.id, secret).hash)

        handlers = CrudHandlers(service, service.collection(TOKEN), Hooks(admit, shown=blanked))
        async with people.lock:
            # Never found again by a repeat of the call: its secret is not kept anywhere.
            token = await handlers.create(request, replace(call, nonce=None))
        return TokenCreated(token=token, secret=of_record(token.meta.id, secret).text)

    service.handle(ENDPOINT, create)


def _owner(user: User) -> OwnerRef:
    return OwnerRef(kind=user.kind, id=user.meta.id, project=None, name=user.meta.name)


def _no_user(name: str) -> Refused:
    wrong = FieldError(where="spec.user", message="no such user")
    return Refused(REFERENCE, f"there is no user {name}", errors=(wrong,))


def _check_expiry(expires_at: datetime | None, now: datetime) -> None:
    if expires_at is None:
        return
    if expires_at.tzinfo is None or expires_at <= now:
        wrong = FieldError(
            where="spec.expires_at",
            message="not a time to come",
            accepted="a time in the future with its zone, as in 2030-01-31T12:00:00Z",
        )
        raise Refused(INVALID, f"{wrong.where}: {wrong.message}", errors=(wrong,))
