"""Claim what a resource will take of its project's quotas, before it is made or grows."""

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model, Name, ResourceId


class ClaimRequest(Model):
    """All that `resource` takes from now on; an earlier claim of its is replaced. Nothing at
    all (`{}`) gives back."""

    project: Name
    resource: ResourceId
    amounts: dict[str, int]


class ClaimResponse(Model):
    """It is claimed, or there is nothing to claim."""


ENDPOINT = Endpoint(
    service="security",
    op="quota.claim",
    request=ClaimRequest,
    response=ClaimResponse,
    policy=INTERNAL,
    summary="Claim what a resource takes of its project's quotas.",
)
