"""Appends to the audit trail."""

from __future__ import annotations

from trivet.contracts.security.endpoints.audit_append import (
    ENDPOINT,
    AppendRequest,
    AppendResponse,
)
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.security.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""

    async def append(request: AppendRequest, call: Call) -> AppendResponse:
        return AppendResponse(last_seq=await parts.trail.append(request.entries))

    service.handle(ENDPOINT, append)
