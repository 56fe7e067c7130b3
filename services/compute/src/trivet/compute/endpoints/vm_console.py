"""Join a VM's console: a ticket of the node that runs it."""

from __future__ import annotations

from trivet.compute.parts import Parts
from trivet.contracts.compute.console import ConsoleRequest
from trivet.contracts.compute.endpoints.node_stream_ticket import TICKET_S, StreamKind
from trivet.contracts.compute.endpoints.vm_console import ENDPOINT
from trivet.contracts.stream import StreamTicket
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.console`."""

    async def handle(request: ConsoleRequest, call: Call) -> StreamTicket:
        kind = StreamKind(request.kind.value)
        return await parts.stream(request, kind, TICKET_S, call)

    service.handle(ENDPOINT, handle)
