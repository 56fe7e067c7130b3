"""Gives a token another secret."""

from __future__ import annotations

import secrets
from datetime import timedelta

from trivet.contracts.security.endpoints.token_create import TokenCreated
from trivet.contracts.security.endpoints.token_rotate import ENDPOINT, RotateRequest
from trivet.contracts.security.identity import TOKEN, Token
from trivet.runtime.call import Call
from trivet.runtime.crud import not_found
from trivet.runtime.service import Service
from trivet.security.domain.access import grants_of, may_give
from trivet.security.domain.tokens import SECRET_BYTES, of_record, rotated
from trivet.security.endpoints.tokens import blanked
from trivet.security.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""
    people = parts.people

    async def rotate(request: RotateRequest, call: Call) -> TokenCreated:
        secret = secrets.token_urlsafe(SECRET_BYTES)
        now = parts.runtime.clock.now()
        keep = timedelta(seconds=request.keep_s)

        def renewed(token: Token) -> Token:
            user = people.users.get(token.spec.user)
            held = grants_of(user.spec.roles, people.roles_now()) if user else ()
            may_give(call.caller, held, f"token {token.meta.name}")
            return rotated(token, of_record(token.meta.id, secret), now, keep)

        async with people.lock:
            made = await people.tokens.mutate(people.tokens.kind.key(None, request.name), renewed)
        if made is None:
            raise not_found(TOKEN, request.name, None)
        return TokenCreated(token=blanked(made), secret=of_record(made.meta.id, secret).text)

    service.handle(ENDPOINT, rotate)
