"""Make a ticket to a VM's console that works without a token."""

from __future__ import annotations

from trivet.compute.parts import Parts
from trivet.contracts.compute.console import ConsoleRequest, ConsoleTicket
from trivet.contracts.compute.endpoints.console_join import JOIN_PATH
from trivet.contracts.compute.endpoints.node_stream_ticket import StreamKind
from trivet.contracts.compute.endpoints.vm_console_ticket import ENDPOINT
from trivet.contracts.stream import OnBehalf
from trivet.runtime.call import Call
from trivet.runtime.service import Service

EXPIRES_S = 60.0


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.console-ticket`."""

    async def handle(request: ConsoleRequest, call: Call) -> ConsoleTicket:
        kind = StreamKind(request.kind.value)
        caller = call.caller
        on_behalf = caller.token_id and OnBehalf(
            user=caller.user,
            token_id=caller.token_id,
            permission=ENDPOINT.policy.permission,
            project=request.project,
        )
        made = await parts.stream(request, kind, EXPIRES_S, call, on_behalf or None)
        ticket = f"{made.node}.{made.secret}"
        path = JOIN_PATH.format(ticket=ticket)
        return ConsoleTicket(ticket=ticket, path=path, expires_s=made.expires_s)

    service.handle(ENDPOINT, handle)
