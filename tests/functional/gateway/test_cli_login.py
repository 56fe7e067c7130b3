"""`trivet login` against a provider on loopback."""

from __future__ import annotations

import httpx
import pytest

from trivet.cli.login import token_of
from trivet.contracts.errors import Refused
from trivet.contracts.security.identity_provider import LoginFacts
from trivet.testing.oidc_server import OidcServer


class Impatient(OidcServer):
    """A provider whose person confirms after some polls."""

    polls = 0

    def grant(self, path: str, form: object) -> tuple[int, object]:  # type: ignore[override]
        if path == "/token":
            self.polls += 1
            self.confirmed = self.polls > 2
        return super().grant(path, form)  # type: ignore[arg-type]


def facts(server: OidcServer, client_id: str = "trivet-cli") -> LoginFacts:
    return LoginFacts(issuer=server.issuer, client_id=client_id, scopes="openid")


def test_a_confirmed_code_gives_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    with Impatient([], lambda claims: f"signed for {claims['preferred_username']}") as server:
        with httpx.Client() as http:
            assert token_of(http, facts(server)) == "signed for ann"
        assert server.polls == 3
    assert "confirm the code WDJB-MJHT" in capsys.readouterr().err


def test_what_the_provider_refuses_is_told() -> None:
    with OidcServer([], lambda claims: "") as server, httpx.Client() as http:
        with pytest.raises(Refused, match="answers 400"):
            token_of(http, facts(server, "unknown"))
        away = LoginFacts(issuer="http://192.0.2.1", client_id="x", scopes="openid")
        with pytest.raises(Refused, match="not https"):
            token_of(http, away)
