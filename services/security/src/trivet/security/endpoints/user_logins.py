"""Tells where a person can log in."""

from __future__ import annotations

from trivet.contracts.endpoint import Nothing
from trivet.contracts.security.endpoints.user_logins import ENDPOINT, LoginResponse
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.security.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""

    async def facts(request: Nothing, call: Call) -> LoginResponse:
        return LoginResponse(providers=parts.identities.logins())

    service.handle(ENDPOINT, facts)
