"""Ask a node's security agent to bring the firewall up to date with the ports there."""

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.security.firewall import Binding


class ProtectRequest(Model):
    """All ports of the node as its network agent wants them protected now."""

    bindings: tuple[Binding, ...]


class ProtectResponse(Model):
    """The generation in force for each port; one that is missing passes nothing, and
    `reasons` says why."""

    protected: dict[ResourceId, int]
    reasons: dict[ResourceId, str] = {}


ENDPOINT = Endpoint(
    service="security",
    op="port.protect",
    request=ProtectRequest,
    response=ProtectResponse,
    policy=INTERNAL,
    summary="Put the firewall rules of this node's ports in force.",
    per_node=True,
    timeout_s=15.0,
)
