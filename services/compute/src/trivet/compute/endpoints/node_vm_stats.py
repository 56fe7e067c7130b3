"""What a guest of this node uses."""

from __future__ import annotations

from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.node_vm_stats import ENDPOINT, NodeStatsRequest
from trivet.contracts.compute.stats import GuestStats, Statistics
from trivet.contracts.errors import NOT_SUPPORTED, Refused
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.node-stats` for this node."""

    async def handle(request: NodeStatsRequest, call: Call) -> GuestStats:
        if not isinstance(parts.hypervisor, Statistics):
            raise Refused(NOT_SUPPORTED, f"{parts.hypervisor.name} does not tell what guests use")
        return await parts.hypervisor.stats(request.id)

    service.handle(ENDPOINT, handle)
