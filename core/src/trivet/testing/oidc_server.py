"""A small OpenID provider on loopback: its documents, its keys, and tokens as a test wants them.

It serves what a real one publishes, and the device flow: a code that nobody has confirmed yet
is pending, `confirm` makes the next poll succeed.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

Sign = Callable[[Mapping[str, Any]], str]


class OidcServer:
    """A provider; `keys` are the public JWKs that it publishes, `sign` makes its tokens."""

    def __init__(self, keys: list[dict[str, Any]], sign: Sign) -> None:
        self.keys = keys
        self.sign = sign
        self.fetches = 0
        self.away = False
        self.confirmed = False
        self.claims: dict[str, Any] = {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                self._answer(*server.document(self.path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {key: values[0] for key, values in parse_qs(body).items()}
                self._answer(*server.grant(self.path, form))

            def _answer(self, status: int, document: Any) -> None:
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    def __enter__(self) -> OidcServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def document(self, path: str) -> tuple[int, Any]:
        """What GET answers."""
        if self.away:
            return 503, {}
        if path == "/.well-known/openid-configuration":
            return 200, {
                "issuer": self.issuer,
                "jwks_uri": f"{self.issuer}/keys",
                "device_authorization_endpoint": f"{self.issuer}/device",
                "token_endpoint": f"{self.issuer}/token",
            }
        if path == "/keys":
            self.fetches += 1
            return 200, {"keys": self.keys}
        return 404, {}

    def grant(self, path: str, form: Mapping[str, str]) -> tuple[int, Any]:
        """What POST answers: the two halves of the device flow."""
        if path == "/device" and form.get("client_id") == "trivet-cli":
            return 200, {
                "device_code": "d-1",
                "user_code": "WDJB-MJHT",
                "verification_uri": f"{self.issuer}/activate",
                "expires_in": 60,
                "interval": 0,
            }
        if path == "/token" and form.get("device_code") == "d-1":
            if not self.confirmed:
                return 400, {"error": "authorization_pending"}
            return 200, {"access_token": self.token(**self.claims), "token_type": "Bearer"}
        return 400, {"error": "invalid_request"}

    def token(self, **changes: Any) -> str:
        """A token as the provider signs it now; `changes` replace claims, None leaves one out."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": "trivet",
            "sub": "42",
            "iat": now,
            "exp": now + 300,
            "preferred_username": "ann",
            **changes,
        }
        return self.sign({k: v for k, v in claims.items() if v is not None})


def unsigned(claims: Mapping[str, Any], head: Mapping[str, Any], signature: bytes = b"") -> str:
    """A token that nobody signed, in the compact form."""
    parts = (json.dumps(head).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)
