"""Ask a node's agent what a guest of its uses."""

from trivet.contracts.access import INTERNAL
from trivet.contracts.compute.stats import GuestStats
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model, ResourceId


class NodeStatsRequest(Model):
    """Which VM."""

    id: ResourceId


ENDPOINT = Endpoint(
    service="compute",
    op="vm.node-stats",
    request=NodeStatsRequest,
    response=GuestStats,
    policy=INTERNAL,
    summary="What a guest of this node uses.",
    per_node=True,
    changes=False,
)
