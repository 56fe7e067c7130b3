"""Claim what a resource will take of its project's quotas, before it is made or grows."""

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model, Name, ResourceId


class ClaimRequest(Model):
    """All that `resource` takes with the spec of that generation. Nothing at all (`{}`) gives back.

    Before the spec is `stored` this only adds to what the resource has claimed: of two who change
    it at once, who fails must not give back what the other one takes. Once it is stored the claim
    is exactly this, unless somebody claimed for a later generation meanwhile.
    """

    project: Name
    resource: ResourceId
    amounts: dict[str, int]
    generation: int = 1
    stored: bool = False


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
