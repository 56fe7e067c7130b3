"""Tells which connections are under way at this node's ports."""

from __future__ import annotations

from trivet.contracts.endpoint import Nothing
from trivet.contracts.security.endpoints.node_connections import ENDPOINT, ConnectionsResponse
from trivet.contracts.security.firewall import Tracking
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.security.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""

    async def connections(request: Nothing, call: Call) -> ConnectionsResponse:
        if not isinstance(parts.firewall, Tracking):
            return ConnectionsResponse(connections=(), told=False)
        return ConnectionsResponse(connections=await parts.firewall.connections())

    service.handle(ENDPOINT, connections)
