"""The keys of an OpenID provider: fetched when they are needed, and kept, within bounds.

A key that is not known makes one look for new ones, but not more often than `AGAIN_S`, so that
whoever sends forged tokens can't make us ask for ever. While the provider is away, keys that
were good go on being so for `STALE_S`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jwt import PyJWK, PyJWTError

from trivet.contracts.errors import UNAVAILABLE, Retry

if TYPE_CHECKING:
    import httpx

FRESH_S = 600.0
AGAIN_S = 30.0
STALE_S = 86_400.0
TIMEOUT_S = 5.0
DOCUMENT_BYTES = 256 * 1024
KEYS_MAX = 100
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class KeySet:
    """Keys, and when they were fetched (monotonic)."""

    keys: tuple[PyJWK, ...]
    at: float

    def find(self, key_id: str | None) -> PyJWK | None:
        """The key of that id; None, where a token names no key, is the only one that there is
        (OpenID Connect Core, 10.1: with several, tokens have to name theirs)."""
        if key_id is None:
            return self.keys[0] if len(self.keys) == 1 else None
        return next((key for key in self.keys if key.key_id == key_id), None)


class ProviderKeys:
    """The keys of one issuer."""

    def __init__(self, issuer: str, client: httpx.AsyncClient) -> None:
        self._issuer = issuer
        self._client = client
        self._known: KeySet | None = None
        self._tried = float("-inf")
        self._lock = asyncio.Lock()

    async def key(self, key_id: str | None) -> PyJWK | None:
        """The key of that id (`KeySet.find`), or None where the provider has none such.

        Raises `Retry(UNAVAILABLE)` where that can't be told.
        """
        known = self._known
        if known is not None and time.monotonic() - known.at < FRESH_S:
            found = known.find(key_id)
            if found is not None:
                return found
        async with self._lock:
            await self._renew(key_id)
        if self._known is None or time.monotonic() - self._known.at > STALE_S:
            raise Retry(UNAVAILABLE, f"the keys of {self._issuer} can't be had", retry_after_s=5.0)
        return self._known.find(key_id)

    async def _renew(self, key_id: str | None) -> None:
        import httpx  # late: it is large, and seldom needed

        now = time.monotonic()
        known = self._known
        if known is not None and known.find(key_id) is not None and now - known.at < FRESH_S:
            return
        if now - self._tried < AGAIN_S:
            return
        self._tried = now
        try:
            about = await self._document(
                f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
            )
            if about.get("issuer") != self._issuer:
                return
            found = await self._document(str(about.get("jwks_uri", "")))
        except (httpx.HTTPError, ValueError):
            return
        self._known = KeySet(tuple(_usable(found.get("keys"))), now)

    async def _document(self, url: str) -> dict[str, Any]:
        """A JSON object from a place that can be trusted to be the provider's."""
        import httpx

        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in LOOPBACK:
            raise ValueError(f"{url} is not https")
        body = bytearray()
        async with self._client.stream("GET", url, timeout=TIMEOUT_S) as reply:
            reply.raise_for_status()
            async for chunk in reply.aiter_bytes():
                body += chunk
                if len(body) > DOCUMENT_BYTES:
                    raise ValueError(f"{url} is too large")
        found = httpx.Response(200, content=bytes(body)).json()
        return found if isinstance(found, dict) else {}


def _usable(found: Any) -> list[PyJWK]:
    """The keys that can check signatures; secrets and keys for other uses are left out."""
    keys = []
    for item in found[:KEYS_MAX] if isinstance(found, list) else ():
        if not isinstance(item, dict) or item.get("kty") not in ("RSA", "EC", "OKP"):
            continue
        if item.get("use", "sig") != "sig":
            continue
        try:
            keys.append(PyJWK(item))
        except PyJWTError:
            continue
    return keys
