"""Checks the audit trail against its hash chain."""

from __future__ import annotations

from trivet.contracts.endpoint import Nothing
from trivet.contracts.security.endpoints.audit_verify import ENDPOINT, VerifyReport
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.security.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""

    async def verify(request: Nothing, call: Call) -> VerifyReport:
        verdict = await parts.trail.verify()
        return VerifyReport(
            intact=verdict.first_bad_seq is None,
            records=verdict.records,
            head=verdict.head.hash,
            first_bad_seq=verdict.first_bad_seq,
            reason=verdict.reason,
        )

    service.handle(ENDPOINT, verify)
