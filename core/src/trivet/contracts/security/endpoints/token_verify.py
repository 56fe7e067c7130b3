"""Tell the gateway who a bearer token belongs to and what that user may do."""

from trivet.contracts.access import INTERNAL, Caller
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model


class VerifyRequest(Model):
    """The bearer token as it came."""

    bearer: str


class VerifyResponse(Model):
    """`caller` None: it proves nothing (unknown, expired, revoked, disabled)."""

    caller: Caller | None


ENDPOINT = Endpoint(
    service="security",
    op="token.verify",
    request=VerifyRequest,
    response=VerifyResponse,
    policy=INTERNAL,
    summary="Who a bearer token belongs to, and what that user may do.",
    changes=False,
)
