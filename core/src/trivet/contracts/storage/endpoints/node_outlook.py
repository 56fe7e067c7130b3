"""What would become of the volumes of a node if it failed now."""

from trivet.contracts.access import needs
from trivet.contracts.compute.node import NODE
from trivet.contracts.endpoint import Endpoint, Http, Ref, collection_path
from trivet.contracts.model import Model
from trivet.contracts.storage.outlook import Effect


class VolumeAtStake(Model):
    """A volume that would be touched, the worst first."""

    project: str
    volume: str
    effect: Effect
    good_left: int
    message: str


class NodeOutlook(Model):
    """All volumes with a replica on the node, or held there."""

    volumes: tuple[VolumeAtStake, ...] = ()


ENDPOINT = Endpoint(
    service="storage",
    op="node.outlook",
    request=Ref,
    response=NodeOutlook,
    policy=needs("storage.node.outlook"),
    summary="What would become of volumes if this node failed now, the worst first.",
    http=Http("GET", collection_path(NODE) + "/{name}/outlook"),
    changes=False,
)
