"""Ask a node's agent for a ticket to a stream of a domain it runs."""

from enum import StrEnum

from pydantic import Field

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.stream import OnBehalf, StreamTicket

TICKET_S = 30.0


class StreamKind(StrEnum):
    """What the stream is."""

    SERIAL = "serial"
    VNC = "vnc"
    SCREENSHOT = "screenshot"


class StreamRequest(Model):
    """Which VM's, which stream; the ticket lasts `expires_s` seconds, and says on whose behalf it
    was made."""

    id: ResourceId
    kind: StreamKind
    expires_s: float = Field(default=TICKET_S, gt=0, le=300)
    on_behalf: OnBehalf | None = None


ENDPOINT = Endpoint(
    service="compute",
    op="vm.stream-ticket",
    request=StreamRequest,
    response=StreamTicket,
    policy=INTERNAL,
    summary="A ticket to a stream of a domain of this node.",
    per_node=True,
)
