"""Thaw the file systems of a guest of this node."""

from __future__ import annotations

from trivet.compute.node.guest_watch import agent_of
from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.node_vm_thaw import ENDPOINT, ThawRequest, ThawResponse
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.thaw` for this node."""

    async def handle(request: ThawRequest, call: Call) -> ThawResponse:
        agent = agent_of(parts.hypervisor)
        return ThawResponse(filesystems=await agent.thaw(request.id))

    service.handle(ENDPOINT, handle)
