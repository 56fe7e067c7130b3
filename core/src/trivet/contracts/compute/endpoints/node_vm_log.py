"""Ask a node's agent for the end of a domain's serial console."""

from pydantic import Field

from trivet.contracts.access import INTERNAL
from trivet.contracts.compute.endpoints.vm_log import LogResponse
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model, ResourceId


class NodeLogRequest(Model):
    """Which VM; `max_bytes` of the end."""

    id: ResourceId
    max_bytes: int = Field(default=65536, ge=1, le=262144)


ENDPOINT = Endpoint(
    service="compute",
    op="vm.read-log",
    request=NodeLogRequest,
    response=LogResponse,
    policy=INTERNAL,
    summary="The end of a domain's serial console on this node.",
    per_node=True,
    changes=False,
)
