"""Tell a node's agent to act once on a domain it runs (a reset can't be a desired state)."""

from trivet.contracts.access import INTERNAL
from trivet.contracts.compute.hypervisor import Act
from trivet.contracts.endpoint import Endpoint, Nothing
from trivet.contracts.model import Model, ResourceId


class ActRequest(Model):
    """Which VM, which act."""

    id: ResourceId
    act: Act


ENDPOINT = Endpoint(
    service="compute",
    op="vm.act",
    request=ActRequest,
    response=Nothing,
    policy=INTERNAL,
    summary="Act once on a domain of this node.",
    per_node=True,
)
