"""What a running VM uses, asked of its node."""

from __future__ import annotations

from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.node_vm_stats import ENDPOINT as NODE_STATS
from trivet.contracts.compute.endpoints.node_vm_stats import NodeStatsRequest
from trivet.contracts.compute.endpoints.vm_stats import ENDPOINT
from trivet.contracts.compute.stats import GuestStats
from trivet.contracts.compute.vm import Power
from trivet.contracts.endpoint import Ref
from trivet.contracts.errors import INVALID, Refused
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.stats`."""

    async def handle(request: Ref, call: Call) -> GuestStats:
        vm = await parts.vm(request.name, request.project)
        if vm.status.node is None or vm.status.power not in (Power.RUNNING, Power.PAUSED):
            raise Refused(INVALID, f"vm {request.name} is {vm.status.power}", hint="start it first")
        answer: GuestStats = await parts.runtime.client.call(
            NODE_STATS,
            NodeStatsRequest(id=vm.meta.id),
            node=vm.status.node,
            caller=call.caller,
            request_id=call.request_id,
        )
        return answer

    service.handle(ENDPOINT, handle)
