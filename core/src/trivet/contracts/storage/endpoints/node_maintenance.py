"""Put a node into maintenance, or take it out again.

In maintenance it takes nothing new. Where a volume would be unavailable without the node, `on` is
refused, naming those volumes, unless the data are to be moved away first (`move`) or that is
accepted (`force`).
"""

from enum import StrEnum

from trivet.contracts.access import needs
from trivet.contracts.compute.node import NODE, Node
from trivet.contracts.endpoint import Endpoint, Http, Ref, collection_path


class Mode(StrEnum):
    """Into maintenance, or out of it."""

    ON = "on"
    OFF = "off"


class MaintenanceRequest(Ref):
    """`move`: move its replicas away; `force`: whatever becomes unavailable meanwhile."""

    mode: Mode
    move: bool = False
    force: bool = False


ENDPOINT = Endpoint(
    service="storage",
    op="node.maintenance",
    request=MaintenanceRequest,
    response=Node,
    policy=needs("storage.node.maintenance"),
    summary="Put a node into maintenance (`on`), or take it out again (`off`).",
    http=Http("POST", collection_path(NODE) + "/{name}:maintenance"),
    timeout_s=20.0,
)
