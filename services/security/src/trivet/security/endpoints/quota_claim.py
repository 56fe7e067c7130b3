"""Claims what a resource takes of its project's quotas."""

from __future__ import annotations

from trivet.contracts.security.endpoints.quota_claim import (
    ENDPOINT,
    ClaimRequest,
    ClaimResponse,
)
from trivet.contracts.security.quota import Ledger
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.security.domain.quotas import claimed
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

        def decide(ledger: Ledger) -> Ledger:
            return claimed(ledger, quotas, request.project, request.resource, request.amounts, now)

        await parts.ledgers.change(request.project, decide)
        return ClaimResponse()

    service.handle(ENDPOINT, claim)
