"""Swap a ticket to a stream of this node for a fresh one."""

from __future__ import annotations

from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.node_stream_swap import ENDPOINT, SwapRequest
from trivet.contracts.stream import StreamTicket
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.stream-swap` for this node."""

    async def handle(request: SwapRequest, call: Call) -> StreamTicket:
        return parts.streams.swap(request.secret)

    service.handle(ENDPOINT, handle)
