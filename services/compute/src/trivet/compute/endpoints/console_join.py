"""Join a console with a ticket: the node that gave it swaps it for one nobody has seen."""

from __future__ import annotations

from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.console_join import ENDPOINT, JoinRequest
from trivet.contracts.compute.endpoints.node_stream_swap import ENDPOINT as SWAP
from trivet.contracts.compute.endpoints.node_stream_swap import SwapRequest
from trivet.contracts.errors import UNAUTHENTICATED, Refused
from trivet.contracts.stream import StreamTicket
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `console.join`."""

    async def handle(request: JoinRequest, call: Call) -> StreamTicket:
        node, _, secret = request.ticket.partition(".")
        if parts.nodes.get(node) is None:
            raise Refused(UNAUTHENTICATED, "the ticket opens nothing")
        return await parts.runtime.client.call(
            SWAP, SwapRequest(secret=secret), node=node, request_id=call.request_id
        )

    service.handle(ENDPOINT, handle)
