"""The law for identity providers: from a bearer token to the user it proves."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from trivet.contracts.driver import Driver
from trivet.contracts.model import Model
from trivet.contracts.security.identity import RoleBinding


class Identity(Model):
    """Who was proven, by which token. `roles` are those that the provider's configuration gives
    to what the token says of its user, beside the ones of the user's own record here; somebody
    of whom there is no record enters by them alone."""

    user: str
    token_id: str
    roles: tuple[RoleBinding, ...] = ()


class IdentityProvider(Driver, Protocol):
    """Tells who a bearer token belongs to. The built-in one knows Trivet's own tokens."""

    async def identify(self, bearer: str) -> Identity | None:
        """The identity that the token proves now, or None if it proves nothing.

        Raises `Retry` where that can't be told now.
        """
        ...


class LoginFacts(Model):
    """How a program gets a token of a provider: OAuth 2.0 with a device code (RFC 8628)."""

    issuer: str
    client_id: str
    scopes: str


@runtime_checkable
class OffersLogin(Protocol):
    """A provider at which a person can log in."""

    @property
    def login(self) -> LoginFacts | None:
        """How; None where its configuration does not say."""
        ...
