"""Make a token. The only moment at which its secret is shown."""

from trivet.contracts.access import needs
from trivet.contracts.endpoint import CreateRequest, Endpoint, Http
from trivet.contracts.model import Model
from trivet.contracts.security.identity import TOKEN, Token, TokenSpec


class TokenCreated(Model):
    """`secret` goes into the Authorization header, and is kept nowhere by Trivet."""

    token: Token
    secret: str


ENDPOINT = Endpoint(
    service="security",
    op="token.create",
    request=CreateRequest[TokenSpec],
    response=TokenCreated,
    policy=needs("security.token.create"),
    summary="Make a token; its secret is shown this once.",
    http=Http("POST", "/v1/tokens", 201),
    kind=TOKEN,
)
