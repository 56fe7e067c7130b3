"""A ticket to a stream of a domain of this node."""

from __future__ import annotations

from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.node_stream_ticket import ENDPOINT, StreamRequest
from trivet.contracts.stream import StreamTicket
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.stream-ticket` for this node."""

    async def handle(request: StreamRequest, call: Call) -> StreamTicket:
        return await parts.streams.ticket(request)

    service.handle(ENDPOINT, handle)
