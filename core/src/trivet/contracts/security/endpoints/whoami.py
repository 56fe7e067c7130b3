"""Tell the caller who it is; used by `trivet` to check its configuration."""

from trivet.contracts.access import AUTHENTICATED, Grant
from trivet.contracts.endpoint import Endpoint, Http, Nothing
from trivet.contracts.model import Model


class WhoAmI(Model):
    """The caller and its grants."""

    user: str
    grants: tuple[Grant, ...]


ENDPOINT = Endpoint(
    service="security",
    op="user.whoami",
    request=Nothing,
    response=WhoAmI,
    policy=AUTHENTICATED,
    summary="Who the caller is and what it may do.",
    http=Http("GET", "/v1/whoami"),
    changes=False,
)
