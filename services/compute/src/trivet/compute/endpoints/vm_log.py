"""Show the end of what a VM's serial console has shown, asked of its node."""

from __future__ import annotations

from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.node_vm_log import ENDPOINT as READ_LOG
from trivet.contracts.compute.endpoints.node_vm_log import NodeLogRequest
from trivet.contracts.compute.endpoints.vm_log import ENDPOINT, LogRequest, LogResponse
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.log`."""

    async def handle(request: LogRequest, call: Call) -> LogResponse:
        vm = await parts.vm(request.name, request.project)
        if vm.status.node is None:
            return LogResponse(text="")
        return await parts.runtime.client.call(
            READ_LOG,
            NodeLogRequest(id=vm.meta.id, max_bytes=request.max_bytes),
            node=vm.status.node,
            request_id=call.request_id,
        )

    service.handle(ENDPOINT, handle)
