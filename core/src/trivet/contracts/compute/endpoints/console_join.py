"""Join the console that a ticket is for; the ticket is then used up."""

from trivet.contracts.access import PUBLIC
from trivet.contracts.compute.console import TicketText
from trivet.contracts.endpoint import Endpoint, Http
from trivet.contracts.model import Model
from trivet.contracts.stream import StreamTicket

JOIN_PATH = "/v1/consoles/{ticket}"


class JoinRequest(Model):
    """The ticket."""

    ticket: TicketText


ENDPOINT = Endpoint(
    service="compute",
    op="console.join",
    request=JoinRequest,
    response=StreamTicket,
    policy=PUBLIC,
    summary="Join a VM's console with a ticket, once.",
    http=Http("GET", JOIN_PATH, 101, stream="websocket"),
)
