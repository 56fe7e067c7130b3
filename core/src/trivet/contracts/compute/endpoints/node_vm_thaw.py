"""Thaw the file systems of a guest of this node."""

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model, ResourceId


class ThawRequest(Model):
    """Which VM."""

    id: ResourceId


class ThawResponse(Model):
    """How many were still frozen; 0: the bound of the freeze had passed."""

    filesystems: int


ENDPOINT = Endpoint(
    service="compute",
    op="vm.thaw",
    request=ThawRequest,
    response=ThawResponse,
    policy=INTERNAL,
    summary="Thaw the file systems of a guest of this node.",
    per_node=True,
    timeout_s=30.0,
)
