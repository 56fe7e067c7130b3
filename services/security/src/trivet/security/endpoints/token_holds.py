"""Tells the gateway whether what was begun with a token may go on."""

from __future__ import annotations

from trivet.contracts.security.endpoints.token_holds import (
    ENDPOINT,
    HoldsRequest,
    HoldsResponse,
)
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.security.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""

    async def holds(request: HoldsRequest, call: Call) -> HoldsResponse:
        return HoldsResponse(holds=parts.identities.holds(request.on_behalf))

    service.handle(ENDPOINT, holds)
