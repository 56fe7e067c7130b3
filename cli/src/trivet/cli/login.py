"""`trivet login`: a token of the OpenID provider that the cluster trusts, for this user's CLI.

The device flow (RFC 8628): the command shows an address and a code, the person confirms it in
whatever browser it likes, and the token goes into the client's configuration. The cluster says
which provider; what it may demand of the provider is no more than that flow.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import typer

from trivet.cli.session import connected
from trivet.client.config import config_file, load_config, save_config
from trivet.contracts.endpoint import Nothing
from trivet.contracts.errors import Refused, code
from trivet.contracts.security.endpoints.user_logins import ENDPOINT as LOGINS
from trivet.contracts.security.identity_provider import LoginFacts

LOGIN_FAILED = code("client.login_failed", 400, "The login did not succeed")
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
TIMEOUT_S = 10.0
SLOWER_S = 5.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def login(
    issuer: Annotated[
        str | None, typer.Option(help="Which provider, where the cluster trusts several.")
    ] = None,
) -> None:
    """Log in at the cluster's OpenID provider; the token is kept in the configuration."""
    with connected() as client:
        providers = client.call(LOGINS, Nothing()).providers
    chosen = [p for p in providers if issuer in (None, p.issuer)]
    if not chosen:
        known = ", ".join(p.issuer for p in providers) or "none: a token is all that there is"
        raise Refused(LOGIN_FAILED, "there is no provider to log in at", hint=f"known: {known}")
    with httpx.Client(timeout=TIMEOUT_S, follow_redirects=False) as http:
        token = token_of(http, chosen[0])
    path = config_file(os.environ)
    save_config(load_config().model_copy(update={"token": token}), path)
    print(f"logged in; the token is in {path}")


def token_of(http: httpx.Client, provider: LoginFacts) -> str:
    """The token, once the person has confirmed; raises `Refused` where that fails."""
    about = _asked(http, "GET", f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration")
    device_url, token_url = (
        str(about.get(name, "")) for name in ("device_authorization_endpoint", "token_endpoint")
    )
    if not device_url or not token_url:
        raise Refused(LOGIN_FAILED, f"{provider.issuer} has no login for devices")
    asked = {"client_id": provider.client_id, "scope": provider.scopes}
    begun = _asked(http, "POST", device_url, asked)
    where = begun.get("verification_uri_complete") or begun.get("verification_uri")
    print(f"open {where} and confirm the code {begun.get('user_code')}", file=sys.stderr)
    wait_s = float(begun.get("interval", 5))
    until = time.monotonic() + float(begun.get("expires_in", 600))
    poll = {
        "grant_type": DEVICE_GRANT,
        "device_code": str(begun.get("device_code")),
        "client_id": provider.client_id,
    }
    while time.monotonic() < until:
        time.sleep(wait_s)
        found = _asked(http, "POST", token_url, poll, may_refuse=True)
        if isinstance(found.get("access_token"), str):
            return str(found["access_token"])
        if found.get("error") == "slow_down":
            wait_s += SLOWER_S
        elif found.get("error") != "authorization_pending":
            raise Refused(LOGIN_FAILED, f"{provider.issuer}: {found.get('error', 'no token')}")
    raise Refused(LOGIN_FAILED, "nobody confirmed the code in time", hint="try again")


def _asked(
    http: httpx.Client,
    method: str,
    url: str,
    form: dict[str, str] | None = None,
    *,
    may_refuse: bool = False,
) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise Refused(LOGIN_FAILED, f"{url} is not https: no token is sent there")
    try:
        reply = http.request(method, url, data=form)
        found = reply.json()
    except (httpx.HTTPError, ValueError) as error:
        raise Refused(LOGIN_FAILED, f"{url}: {error}") from error
    if not isinstance(found, dict) or (reply.is_error and not may_refuse):
        raise Refused(LOGIN_FAILED, f"{url} answers {reply.status_code}")
    return found
