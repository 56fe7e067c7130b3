"""Ask a node's security agent which connections are under way at its ports."""

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint, Nothing
from trivet.contracts.model import Model
from trivet.contracts.security.firewall import Connection


class ConnectionsResponse(Model):
    """Each connection once a port; `told` is false where the firewall here can't tell."""

    connections: tuple[Connection, ...]
    told: bool = True


ENDPOINT = Endpoint(
    service="security",
    op="firewall.connections",
    request=Nothing,
    response=ConnectionsResponse,
    policy=INTERNAL,
    summary="The connections under way at a node's ports.",
    per_node=True,
    changes=False,
)
