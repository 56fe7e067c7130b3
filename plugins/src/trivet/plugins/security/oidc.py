"""People and programs that an OpenID provider vouches for, by the JWTs that it signs.

Only signatures by the issuer's published keys count, only by asymmetric algorithms that the
configuration names, and only from a key that is made for the algorithm: neither `none` nor a
public key used as a secret gets through. Issuer, audience and times are checked, and a user gets
a name with a prefix of its own, so that nobody outside can become a user who was made here.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model, Name
from trivet.contracts.security.identity import RoleBinding
from trivet.contracts.security.identity_provider import (
    Identity,
    IdentityProvider,
    LoginFacts,
)

if TYPE_CHECKING:
    import jwt

LEEWAY_S = 30
TOKEN_CHARS = 8192
CLAIM_ITEMS = 256
USER = re.compile(r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


class RoleRule(Model):
    """Who has `value` in the claim (or as it) holds the role in the project ('*': cluster)."""

    claim: str
    value: str
    role: Name
    project: str = "*"


class OidcConfig(Model):
    """`issuer` as its tokens spell it; `audience` that tokens must be for. `user_claim` names
    the user, with `user_prefix` before it; `client_id` is for `trivet login`."""

    issuer: str = Field(pattern=r"^https?://[!-~]+$")
    audience: str
    user_claim: str = "preferred_username"
    user_prefix: str = "oidc-"
    algorithms: tuple[Algorithm, ...] = ("RS256", "PS256", "ES256", "EdDSA")
    roles: tuple[RoleRule, ...] = ()
    client_id: str | None = None
    scopes: str = "openid profile"


class Oidc:
    """An identity provider on OpenID Connect."""

    name: ClassVar[str] = "oidc"
    Config: ClassVar[type[Model]] = OidcConfig

    def __init__(self, context: DriverContext, config: OidcConfig) -> None:
        # Late: they are large, and seldom needed.
        import httpx

        from trivet.plugins.security.oidc_keys import ProviderKeys

        self._config = config
        self._client = httpx.AsyncClient(follow_redirects=False)
        self._keys = ProviderKeys(config.issuer, self._client)

    @classmethod
    async def probe(cls) -> Probe:
        """It works anywhere; its configuration says with whom."""
        return Probe(usable=True, reason="checks tokens of an OpenID provider")

    async def open(self) -> None:
        """Nothing to fetch before the first token."""

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.aclose()

    @property
    def login(self) -> LoginFacts | None:
        """Where a person can log in, if a client is set up for that."""
        if self._config.client_id is None:
            return None
        return LoginFacts(
            issuer=self._config.issuer,
            client_id=self._config.client_id,
            scopes=self._config.scopes,
        )

    async def identify(self, bearer: str) -> Identity | None:
        """The identity in a token that the provider signed."""
        if len(bearer) > TOKEN_CHARS or bearer.count(".") != 2:
            return None
        import jwt  # late, as above

        try:
            head = jwt.get_unverified_header(bearer)
        except jwt.PyJWTError:
            return None
        algorithm, key_id = head.get("alg"), head.get("kid")
        if algorithm not in self._config.algorithms or not isinstance(key_id, str | None):
            return None
        key = await self._keys.key(key_id)
        if key is None or key.algorithm_name not in _made_for(algorithm):
            return None
        claims = self._claims(bearer, key, algorithm)
        return self._identity(claims) if claims is not None else None

    def _claims(self, bearer: str, key: jwt.PyJWK, algorithm: str) -> dict[str, Any] | None:
        import jwt

        try:
            return jwt.decode(
                bearer,
                key.key,
                algorithms=[algorithm],
                audience=self._config.audience,
                issuer=self._config.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "iss", "aud", "sub"], "verify_signature": True},
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            return None

    def _identity(self, claims: dict[str, Any]) -> Identity | None:
        named = claims.get(self._config.user_claim)
        user = f"{self._config.user_prefix}{named.lower()}" if isinstance(named, str) else ""
        if not USER.match(user):
            return None
        spelled = f"{claims['sub']} {claims.get('jti', claims['iat'])}"
        digest = hashlib.sha256(spelled.encode()).hexdigest()[:16]
        roles = (
            RoleBinding(role=rule.role, project=rule.project)
            for rule in self._config.roles
            if _holds(claims.get(rule.claim), rule.value)
        )
        return Identity(user=user, token_id=f"oidc-{digest}", roles=tuple(roles))


def _made_for(algorithm: str) -> tuple[str, ...]:
    """What a key's own algorithm may be. An RSA key without one is read as RS256, and may sign
    by any of RSA's; of the others the curve is part of the key."""
    if algorithm[:2] in ("RS", "PS"):
        return (algorithm, "RS256")
    return (algorithm,)


def _holds(found: Any, value: str) -> bool:
    if isinstance(found, list):
        return value in found[:CLAIM_ITEMS]
    return isinstance(found, str) and found == value


@hookimpl
def trivet_identity_providers() -> list[type[IdentityProvider]]:
    """OpenID Connect."""
    return [Oidc]
