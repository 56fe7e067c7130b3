"""Tells the gateway who a bearer token belongs to."""

from __future__ import annotations

from trivet.contracts.security.endpoints.token_verify import (
    ENDPOINT,
    VerifyRequest,
    VerifyResponse,
)
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.security.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""

    async def verify(request: VerifyRequest, call: Call) -> VerifyResponse:
        return VerifyResponse(caller=await parts.identities.caller(request.bearer))

    service.handle(ENDPOINT, verify)
