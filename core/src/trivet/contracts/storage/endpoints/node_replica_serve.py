"""Have a node serve its replica of a volume under an epoch, which ends all older ones there."""

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.storage.engine import ServedReplica


class ServeRequest(Model):
    """`epoch` was given to this attach by compare-and-swap, before it is asked for here.
    `remote`: by another node, which can't reach a unix socket here. `fresh`: by a new server,
    whatever served it before is ended."""

    volume: ResourceId
    epoch: int
    remote: bool = False
    fresh: bool = False


ENDPOINT = Endpoint(
    service="storage",
    op="replica.serve",
    request=ServeRequest,
    response=ServedReplica,
    policy=INTERNAL,
    summary="Serve a replica of this node under an epoch.",
    per_node=True,
    timeout_s=20.0,
)
