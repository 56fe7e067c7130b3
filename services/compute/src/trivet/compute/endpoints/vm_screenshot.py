"""A picture of a VM's screen: a ticket of the node that runs it."""

from __future__ import annotations

from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.node_stream_ticket import TICKET_S, StreamKind
from trivet.contracts.compute.endpoints.vm_screenshot import ENDPOINT
from trivet.contracts.endpoint import Ref
from trivet.contracts.stream import StreamTicket
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.screenshot`."""

    async def handle(request: Ref, call: Call) -> StreamTicket:
        return await parts.stream(request, StreamKind.SCREENSHOT, TICKET_S, call)

    service.handle(ENDPOINT, handle)
