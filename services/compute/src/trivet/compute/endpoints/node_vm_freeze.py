"""Freeze the file systems of a guest of this node."""

from __future__ import annotations

from trivet.compute.node.guest_watch import agent_of
from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.node_vm_freeze import (
    ENDPOINT,
    FreezeRequest,
    FreezeResponse,
)
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.freeze` for this node."""

    async def handle(request: FreezeRequest, call: Call) -> FreezeResponse:
        agent = agent_of(parts.hypervisor)
        return FreezeResponse(filesystems=await agent.freeze(request.id, request.bound_s))

    service.handle(ENDPOINT, handle)
