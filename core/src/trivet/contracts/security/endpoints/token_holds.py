"""Whether what was begun with a token may go on: it counts, and its user still has the right."""

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model
from trivet.contracts.stream import OnBehalf


class HoldsRequest(Model):
    """On whose behalf it was begun."""

    on_behalf: OnBehalf


class HoldsResponse(Model):
    """False: it was revoked, has expired, or lacks the right by now."""

    holds: bool


ENDPOINT = Endpoint(
    service="security",
    op="token.holds",
    request=HoldsRequest,
    response=HoldsResponse,
    policy=INTERNAL,
    summary="Whether what was begun with a token may go on.",
    changes=False,
)
