"""Puts the firewall rules of this node's ports in force."""

from __future__ import annotations

from trivet.contracts.security.endpoints.node_protect import (
    ENDPOINT,
    ProtectRequest,
    ProtectResponse,
)
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.security.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""

    async def protect(request: ProtectRequest, call: Call) -> ProtectResponse:
        return await parts.agent.protect(request.bindings)

    service.handle(ENDPOINT, protect)
