"""Tells this node's firewall which ports are plugged here, or about to be."""

from __future__ import annotations

from trivet.contracts.endpoint import Nothing
from trivet.contracts.network.endpoints.node_bindings import ENDPOINT, BindingsResponse
from trivet.network.parts import Parts
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""

    async def bindings(request: Nothing, call: Call) -> BindingsResponse:
        return BindingsResponse(bindings=parts.agent.wanted().bindings)

    service.handle(ENDPOINT, bindings)
