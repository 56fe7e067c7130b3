"""Tell whether a volume is attached on this node, and healthy."""

from __future__ import annotations

from trivet.contracts.storage.endpoints.node_attachment_check import (
    ENDPOINT,
    CheckRequest,
    CheckResponse,
)
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.storage.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer `attachment.check`."""

    async def check(request: CheckRequest, call: Call) -> CheckResponse:
        found = await parts.engine.attached(request.volume)
        return CheckResponse(attached=found[0] if found else None)

    service.handle(ENDPOINT, check)
