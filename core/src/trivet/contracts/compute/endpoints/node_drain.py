"""Ask a node's agent to stop all guests because the node goes down.

Their desired power stays as it was: they start again when the node is back.
"""

from pydantic import Field

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model


class DrainRequest(Model):
    """Guests are asked, and have `grace_s` seconds; then their power is cut."""

    grace_s: int = Field(default=30, ge=0, le=600)


class DrainResponse(Model):
    """How many were stopped, and how many of those by force."""

    stopped: int
    forced: int


ENDPOINT = Endpoint(
    service="compute",
    op="node.drain",
    request=DrainRequest,
    response=DrainResponse,
    policy=INTERNAL,
    summary="Stop all guests of this node, for it goes down.",
    per_node=True,
    timeout_s=660.0,
)
