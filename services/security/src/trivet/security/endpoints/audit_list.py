"""Reads the audit trail."""

from __future__ import annotations

from trivet.contracts.security.endpoints.audit_list import ENDPOINT, AuditListRequest, AuditPage
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.security.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""

    async def read(request: AuditListRequest, call: Call) -> AuditPage:
        return AuditPage(records=await parts.trail.list(request.since_seq, request.limit))

    service.handle(ENDPOINT, read)
