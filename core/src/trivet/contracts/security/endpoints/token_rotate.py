"""Give a token another secret, with the same name, user and rights."""

from pydantic import Field

from trivet.contracts.endpoint import Ref, action
from trivet.contracts.security.endpoints.token_create import TokenCreated
from trivet.contracts.security.identity import TOKEN


class RotateRequest(Ref):
    """Which, and for how long the secret before is good still, so that all who use it can be
    given the new one."""

    keep_s: float = Field(default=0, ge=0, le=604800)


ENDPOINT = action(
    TOKEN,
    "rotate",
    "Give a token another secret; it is shown this once.",
    request=RotateRequest,
    response=TokenCreated,
)
