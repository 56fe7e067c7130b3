"""Ask a node's network agent which ports are plugged there: what the firewall needs to know."""

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint, Nothing
from trivet.contracts.model import Model
from trivet.contracts.security.firewall import Binding


class BindingsResponse(Model):
    """All ports that are plugged, or about to be, on this node."""

    bindings: tuple[Binding, ...]


ENDPOINT = Endpoint(
    service="network",
    op="port.bindings",
    request=Nothing,
    response=BindingsResponse,
    policy=INTERNAL,
    summary="The ports plugged on this node, as its firewall needs them.",
    per_node=True,
    changes=False,
)
