"""Tells this node's firewall the addresses of the ports behind groups."""

from __future__ import annotations

from trivet.contracts.network.endpoints.node_members import (
    ENDPOINT,
    MembersRequest,
    MembersResponse,
)
from trivet.contracts.network.port import PORT
from trivet.network.domain.members import members
from trivet.network.parts import Parts
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer the operation."""
    ports = service.collection(PORT)

    async def tell(request: MembersRequest, call: Call) -> MembersResponse:
        return MembersResponse(lists=members(ports.list(), request.groups))

    service.handle(ENDPOINT, tell)
