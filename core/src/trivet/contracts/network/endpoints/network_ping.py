"""Ask whether an address answers an echo request from its network's gateway."""

from pydantic import Field

from trivet.contracts.access import needs
from trivet.contracts.endpoint import Endpoint, Http, Ref, collection_path
from trivet.contracts.model import Model, Name
from trivet.contracts.network.network import NETWORK


class PingRequest(Ref):
    """`node`: from the gateway of which node (None: any that has the network). A guest answers
    to the gateway of its own node alone: the others have the same address."""

    address: str = Field(max_length=45)
    node: Name | None = None
    timeout_s: float = Field(default=2.0, gt=0, le=10)


class PingResponse(Model):
    """Whether it answered, and from which node it was asked."""

    answered: bool
    node: str


ENDPOINT = Endpoint(
    service="network",
    op="network.ping",
    request=PingRequest,
    response=PingResponse,
    policy=needs("network.network.ping"),
    summary="Ask an address for an echo, from its network's gateway.",
    http=Http("POST", collection_path(NETWORK) + "/{name}:ping"),
    changes=False,
    timeout_s=15.0,
    kind=NETWORK,
)
