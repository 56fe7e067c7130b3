"""Tell whether a volume is attached on this node, and healthy, and has space to write."""

from __future__ import annotations

from trivet.contracts.storage.endpoints.node_attachment_check import (
    ENDPOINT,
    CheckRequest,
    CheckResponse,
)
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.storage.domain.volume_status import replica_on
from trivet.storage.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer `attachment.check`."""

    async def check(request: CheckRequest, call: Call) -> CheckResponse:
        found = await parts.engine.attached(request.volume)
        volume = parts.volumes.by_id(request.volume)
        here = volume is not None and replica_on(volume, parts.runtime.node) is not None
        pool = (volume.status.pool if volume and here else None) or ""
        starved = await parts.pool_agent.starved(pool)
        return CheckResponse(attached=found[0] if found else None, starved=starved)

    service.handle(ENDPOINT, check)
