"""Sends an echo request from a network's gateway on this node."""

from __future__ import annotations

from trivet.contracts.network.endpoints.network_ping import PingResponse
from trivet.contracts.network.endpoints.node_ping import ENDPOINT, NodePingRequest
from trivet.network.parts import Parts
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""

    async def ping(request: NodePingRequest, call: Call) -> PingResponse:
        answered = await parts.agent.ping(request.network, request.address, request.timeout_s)
        return PingResponse(answered=answered, node=parts.runtime.node)

    service.handle(ENDPOINT, ping)
