"""The little HTTP that the metadata service speaks: what a request says, and who may repeat it.

One request a connection, GET, HEAD or PUT, without a body that is read. A token (as EC2's
version 2) is optional; one that is sent must be good. All of it is bounded, for those who ask
are guests.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

HEAD_BYTES = 8192
TOKEN_PATH = "/latest/api/token"
TTL_HEADER = "x-aws-ec2-metadata-token-ttl-seconds"
TOKEN_HEADER = "x-aws-ec2-metadata-token"
TTL_MAX_S = 21600
RATE_PER_S = 20.0
BURST = 60.0
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


@dataclass(frozen=True)
class Asked:
    """A request; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)


def parse(head: bytes) -> Asked | None:
    """The request in a head (with the empty line at its end); None: it is none."""
    try:
        first, *lines = head.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
    except UnicodeDecodeError:
        return None
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        return None
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            return None
        headers[name.strip().lower()] = value.strip()
    return Asked(words[0], words[1].partition("?")[0], headers)


def reply(status: int, text: str = "", *, body: bool = True) -> bytes:
    """A whole answer; the connection ends with it."""
    data = text.encode()
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (data if body else b"")


def forbidden(asked: Asked) -> bool:
    """Whether the request went through a proxy: then whoever asks is not the guest alone."""
    return "x-forwarded-for" in asked.headers


def wanted_ttl(asked: Asked) -> int | None:
    """For how many seconds a token is asked for; None where that is not well asked."""
    text = asked.headers.get(TTL_HEADER, "")
    ttl = int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0
    return ttl if 1 <= ttl <= TTL_MAX_S else None


def make_token(secret: bytes, owner: str, until: int) -> str:
    """A token of `owner`'s (an id) that is good until then (seconds)."""
    return f"{until}-{_sign(secret, owner, until)}"


def good_token(secret: bytes, owner: str, token: str, now: float) -> bool:
    """Whether it is one of `owner`'s and good now."""
    until, _, signed = token.partition("-")
    if not (until.isascii() and until.isdigit() and len(until) < 16):
        return False
    right = hmac.compare_digest(signed.encode(), _sign(secret, owner, int(until)).encode())
    return right and now < int(until)


def _sign(secret: bytes, owner: str, until: int) -> str:
    return hmac.new(secret, f"{owner} {until}".encode(), hashlib.sha256).hexdigest()


@dataclass(frozen=True)
class Bucket:
    """How many requests somebody may still make, as of `at` (seconds)."""

    left: float
    at: float


def take(bucket: Bucket | None, now: float) -> tuple[Bucket, bool]:
    """The bucket after one more request, and whether it may be answered."""
    left = BURST if bucket is None else min(BURST, bucket.left + (now - bucket.at) * RATE_PER_S)
    return (Bucket(left - 1, now), True) if left >= 1 else (Bucket(left, now), False)
