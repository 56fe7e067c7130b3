"""The law for identity providers: from a bearer token to the user it proves."""

from __future__ import annotations

from typing import Protocol

from trivet.contracts.driver import Driver
from trivet.contracts.model import Model


class Identity(Model):
    """Who was proven, by which token."""

    user: str
    token_id: str


class IdentityProvider(Driver, Protocol):
    """Tells who a bearer token belongs to. The built-in one knows Trivet's own tokens."""

    async def identify(self, bearer: str) -> Identity | None:
        """The identity that the token proves now, or None if it proves nothing."""
        ...
