"""Stop all guests of this node, for it goes down."""

from __future__ import annotations

from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.node_drain import ENDPOINT, DrainRequest, DrainResponse
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `node.drain` for this node."""

    async def handle(request: DrainRequest, call: Call) -> DrainResponse:
        stopped, forced = await parts.agent.drain(request.grace_s)
        return DrainResponse(stopped=stopped, forced=forced)

    service.handle(ENDPOINT, handle)
