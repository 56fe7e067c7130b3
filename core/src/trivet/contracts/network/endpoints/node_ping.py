"""Ask a node's network agent to send an echo request from a network's gateway."""

from pydantic import Field

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.network.endpoints.network_ping import PingResponse


class NodePingRequest(Model):
    """Which network (id), which address."""

    network: ResourceId
    address: str
    timeout_s: float = Field(default=2.0, gt=0, le=10)


ENDPOINT = Endpoint(
    service="network",
    op="network.node-ping",
    request=NodePingRequest,
    response=PingResponse,
    policy=INTERNAL,
    summary="Send an echo request from a network's gateway on this node.",
    per_node=True,
    changes=False,
    timeout_s=12.0,
)
