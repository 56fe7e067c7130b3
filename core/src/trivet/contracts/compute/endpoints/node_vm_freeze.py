"""Freeze the file systems of a guest of this node, for the moment of a snapshot."""

from pydantic import Field

from trivet.contracts.access import INTERNAL
from trivet.contracts.compute.guest_agent import FREEZE_MAX_S, FREEZE_S
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model, ResourceId


class FreezeRequest(Model):
    """Which VM; thawed after `bound_s` seconds at the latest."""

    id: ResourceId
    bound_s: float = Field(default=FREEZE_S, gt=0, le=FREEZE_MAX_S)


class FreezeResponse(Model):
    """How many file systems are frozen now."""

    filesystems: int


ENDPOINT = Endpoint(
    service="compute",
    op="vm.freeze",
    request=FreezeRequest,
    response=FreezeResponse,
    policy=INTERNAL,
    summary="Freeze the file systems of a guest of this node, for a moment.",
    per_node=True,
    timeout_s=30.0,
)
