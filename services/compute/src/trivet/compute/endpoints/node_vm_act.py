"""Act once on a domain of this node."""

from __future__ import annotations

from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.node_vm_act import ENDPOINT, ActRequest
from trivet.contracts.endpoint import Nothing
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.act` for this node."""

    async def handle(request: ActRequest, call: Call) -> Nothing:
        await parts.hypervisor.act(request.id, request.act)
        return Nothing()

    service.handle(ENDPOINT, handle)
