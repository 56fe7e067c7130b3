"""Use up a ticket that may have been seen on its way, for one that has been seen by nobody."""

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model
from trivet.contracts.stream import StreamTicket


class SwapRequest(Model):
    """The secret of the ticket."""

    secret: str


ENDPOINT = Endpoint(
    service="compute",
    op="vm.stream-swap",
    request=SwapRequest,
    response=StreamTicket,
    policy=INTERNAL,
    summary="Swap a ticket to a stream of this node for a fresh one.",
    per_node=True,
)
