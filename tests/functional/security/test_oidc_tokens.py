"""Tokens of an OpenID provider: what is taken, what is refused, and what is fetched how often."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from trivet.contracts.driver import DriverContext
from trivet.contracts.endpoint import EditRequest, Nothing
from trivet.contracts.errors import Retry
from trivet.contracts.security.endpoints.user_logins import ENDPOINT as LOGIN
from trivet.contracts.security.endpoints.users import CRUD as USERS
from trivet.contracts.security.identity_provider import IdentityProvider
from trivet.plugins.security import oidc, oidc_keys
from trivet.plugins.security.oidc import Oidc, OidcConfig, RoleRule
from trivet.security.bootstrap import bootstrap
from trivet.testing.fakes import firewall
from trivet.testing.harness import Harness
from trivet.testing.oidc_server import OidcServer, unsigned
from trivet.testing.security_world import World, until

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, key_id: str, **more: str) -> dict[str, Any]:
    algorithm: Any = RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else ECAlgorithm
    return {**json.loads(algorithm.to_jwk(key.public_key())), "kid": key_id, **more}


def hmac_signed(claims: dict[str, Any], secret: bytes) -> str:
    text = unsigned(claims, {"alg": "HS256", "kid": "k1"}).rstrip(".")
    made = base64.urlsafe_b64encode(hmac.digest(secret, text.encode(), "sha256")).rstrip(b"=")
    return f"{text}.{made.decode()}"


def signer(key: Any, algorithm: str, key_id: str) -> Any:
    return lambda claims: jwt.encode(dict(claims), key, algorithm, headers={"kid": key_id})


@pytest.fixture
def server() -> Iterator[OidcServer]:
    keys = [jwk(RSA, "k1", use="sig"), jwk(EC, "k2", alg="ES256"), jwk(OTHER, "enc", use="enc")]
    with OidcServer(keys, signer(RSA, "RS256", "k1")) as server:
        yield server


def config(server: OidcServer, **more: Any) -> OidcConfig:
    rules = (RoleRule(claim="groups", value="ops", role="viewer"),)
    return OidcConfig(issuer=server.issuer, audience="trivet", roles=rules, **more)


@pytest.fixture
async def provider(server: OidcServer, tmp_path: Path) -> AsyncIterator[Oidc]:
    provider = Oidc(DriverContext("n1", tmp_path, tmp_path), config(server))
    await provider.open()
    yield provider
    await provider.close()


async def test_a_good_token_names_a_user(server: OidcServer, provider: Oidc) -> None:
    found = await provider.identify(server.token())
    assert found is not None
    assert (found.user, found.roles) == ("oidc-ann", ())
    found = await provider.identify(server.token(groups=["dev", "ops"]))
    assert found is not None
    assert [(r.role, r.project) for r in found.roles] == [("viewer", "*")]
    server.sign = signer(EC, "ES256", "k2")
    assert await provider.identify(server.token()) is not None


async def test_a_token_that_names_no_key_is_by_the_only_one(
    server: OidcServer, tmp_path: Path
) -> None:
    server.sign = lambda claims: jwt.encode(dict(claims), RSA, "RS256")
    encryption = jwk(OTHER, "enc", use="enc")
    for keys, user in (
        ([jwk(RSA, "k1"), encryption], "oidc-ann"),
        ([jwk(RSA, "k1"), jwk(EC, "k2", alg="ES256")], None),
        ([jwk(OTHER, "k1")], None),
        ([encryption], None),
    ):
        server.keys = keys
        provider = Oidc(DriverContext("n1", tmp_path, tmp_path), config(server))
        found = await provider.identify(server.token())
        assert (found.user if found else None) == user
        await provider.close()


_NOW = int(time.time())


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": _NOW - 3600},
        {"exp": None},
        {"iat": None},
        {"nbf": _NOW + 3600},
        {"iat": _NOW + 3600},
        {"iss": "https://elsewhere.example"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["another", "third"]},
        {"aud": None},
        {"sub": None},
        {"preferred_username": None},
        {"preferred_username": "Ann Other"},
        {"preferred_username": ["ann"]},
    ],
    ids=str,
)
async def test_what_a_token_says_is_checked(
    server: OidcServer, provider: Oidc, changes: dict[str, Any]
) -> None:
    assert await provider.identify(server.token(**changes)) is None


async def test_forged_signatures(server: OidcServer, provider: Oidc) -> None:
    claims = jwt.decode(server.token(), options={"verify_signature": False})
    public = jwk(RSA, "k1")
    # The public key, as everybody can have it, used as the secret of an HMAC.
    secret = json.dumps(public).encode()
    forged = [
        unsigned(claims, {"alg": "none", "kid": "k1"}),
        unsigned(claims, {"alg": "None", "kid": "k1"}),
        unsigned(claims, {"alg": "HS256", "kid": "k1"}, b"x" * 32),
        hmac_signed(claims, secret),
        signer(OTHER, "RS256", "k1")(claims),
        signer(OTHER, "RS256", "enc")(claims),
        signer(EC, "ES256", "k1")(claims),
        signer(RSA, "RS256", "k2")(claims),
        jwt.encode(claims, RSA, "RS256"),
        server.token() + "x",
        "a.b.c",
        "x" * 9000,
    ]
    for text in forged:
        assert await provider.identify(text) is None
    head, _, signature = server.token().split(".")
    other = server.token(preferred_username="root").split(".")[1]
    assert await provider.identify(f"{head}.{other}.{signature}") is None


async def test_an_algorithm_that_is_not_named_is_refused(
    server: OidcServer, tmp_path: Path
) -> None:
    strict = Oidc(DriverContext("n1", tmp_path, tmp_path), config(server, algorithms=("ES256",)))
    assert await strict.identify(server.token()) is None
    await strict.close()


async def test_keys_are_fetched_seldom(
    server: OidcServer, provider: Oidc, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        assert await provider.identify(server.token()) is not None
    assert server.fetches == 1
    for n in range(5):
        claims = jwt.decode(server.token(), options={"verify_signature": False})
        forged = signer(OTHER, "RS256", f"new-{n}")(claims)
        assert await provider.identify(forged) is None
    assert server.fetches == 1
    # A key that the provider brings into use is found at the next time that it may be asked.
    server.keys.append(jwk(OTHER, "k3"))
    server.sign = signer(OTHER, "RS256", "k3")
    assert await provider.identify(server.token()) is None
    monkeypatch.setattr(oidc_keys, "AGAIN_S", 0)
    assert await provider.identify(server.token()) is not None


async def test_while_the_provider_is_away(
    server: OidcServer, provider: Oidc, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.away = True
    with pytest.raises(Retry):
        await provider.identify(server.token())
    server.away = False
    monkeypatch.setattr(oidc_keys, "AGAIN_S", 0)
    assert await provider.identify(server.token()) is not None
    server.away = True
    monkeypatch.setattr(oidc_keys, "FRESH_S", 0)
    assert await provider.identify(server.token()) is not None
    monkeypatch.setattr(oidc_keys, "STALE_S", 0)
    with pytest.raises(Retry):
        await provider.identify(server.token())


async def test_who_comes_in_by_the_provider(server: OidcServer, tmp_path: Path) -> None:
    token_file = tmp_path / "first-token"
    security = {
        "firewall": "fake-firewall",
        "identity": ["oidc"],
        "bootstrap_token_file": token_file,
    }
    configs = {"oidc": config(server, client_id="trivet-cli").model_dump(mode="json")}
    async with Harness(
        tmp_path, plugins=(firewall, oidc), configs=configs, security=security
    ) as harness:
        world = World(harness, token_file, bootstrap)
        await world.network()
        await world.start()
        await until(token_file.exists)
        await world.first_admin()
        facts = (await harness.call(LOGIN, Nothing())).providers
        assert [(f.issuer, f.client_id) for f in facts] == [(server.issuer, "trivet-cli")]
        assert await world.who(server.token()) is None
        by_group = await world.who(server.token(groups=["ops"]))
        assert by_group is not None
        assert (by_group.user, [g.project for g in by_group.grants]) == ("oidc-ann", ["*"])
        # Nobody outside becomes a user who was made here.
        assert await world.who(server.token(preferred_username="admin")) is None
        await world.user("oidc-ann", ("member", "default"))
        both = await world.who(server.token(groups=["ops"]))
        assert both is not None
        assert [g.project for g in both.grants] == ["*", "default"]
        await harness.call(USERS.edit, EditRequest(name="oidc-ann", spec={"disabled": True}))
        assert await world.who(server.token(groups=["ops"])) is None


def test_it_is_a_provider() -> None:
    found: list[type[IdentityProvider]] = oidc.trivet_identity_providers()
    assert found == [Oidc]
