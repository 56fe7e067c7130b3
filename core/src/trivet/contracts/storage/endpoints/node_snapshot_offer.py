"""Have a node serve a volume of a snapshot that it keeps to another node, which copies it."""

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.storage.engine import ServedReplica


class OfferRequest(Model):
    """Which volume of which snapshot, by their ids."""

    snapshot: ResourceId
    volume: ResourceId


ENDPOINT = Endpoint(
    service="storage",
    op="snapshot.offer",
    request=OfferRequest,
    response=ServedReplica,
    policy=INTERNAL,
    summary="Serve a volume of a snapshot of this node to another node.",
    per_node=True,
    timeout_s=20.0,
)
