"""Claims what a resource takes of its project's quotas."""

from __future__ import annotations

from trivet.contracts.security.endpoints.quota_claim import (
    ENDPOINT,
    ClaimRequest,
    ClaimResponse,
)
from trivet.contracts.security.quota import Ledger, QuotaClaim
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.security.domain.quotas import claimed, stored, without
from trivet.security.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""
    projects = parts.people.projects

    async def claim(request: ClaimRequest, call: Call) -> ClaimResponse:
        project = projects.get(request.project)
        if project is None or not project.spec.quotas.limits:
            # Nothing is limited: what there is will be counted when that changes.
            return ClaimResponse()
        quotas, now = project.spec.quotas, parts.runtime.clock.now()
        asked = QuotaClaim(amounts=request.amounts, at=now, generation=request.generation)

        def decide(ledger: Ledger) -> Ledger:
            if not request.amounts:
                return without(ledger, request.resource)
            if request.stored:
                return stored(ledger, request.resource, asked)
            return claimed(ledger, quotas, request.project, request.resource, asked)

        await parts.ledgers.change(request.project, decide)
        return ClaimResponse()

    service.handle(ENDPOINT, claim)
