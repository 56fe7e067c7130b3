"""The end of a domain's serial console on this node."""

from __future__ import annotations

from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.node_vm_log import ENDPOINT, NodeLogRequest
from trivet.contracts.compute.endpoints.vm_log import LogResponse
from trivet.contracts.errors import NOT_FOUND, Refused
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.read-log` for this node."""

    async def handle(request: NodeLogRequest, call: Call) -> LogResponse:
        try:
            shown = await parts.hypervisor.console_log(request.id, request.max_bytes)
        except Refused as error:
            # A VM that has never been started here has shown nothing.
            if error.code is not NOT_FOUND:
                raise
            shown = b""
        return LogResponse(text=shown.decode(errors="replace"))

    service.handle(ENDPOINT, handle)
