"""Tell anybody where a person can log in; `trivet login` asks for it."""

from trivet.contracts.access import PUBLIC
from trivet.contracts.endpoint import Endpoint, Http, Nothing
from trivet.contracts.model import Model
from trivet.contracts.security.identity_provider import LoginFacts


class LoginResponse(Model):
    """The providers that offer a login, in the order in which they are asked."""

    providers: tuple[LoginFacts, ...]


ENDPOINT = Endpoint(
    service="security",
    op="user.logins",
    request=Nothing,
    response=LoginResponse,
    policy=PUBLIC,
    summary="Where a person can log in.",
    http=Http("GET", "/v1/login"),
    changes=False,
)
