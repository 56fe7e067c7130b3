"""The gateway's bounds, each by its name: sizes, counts and times.

What is over one of them is refused with a stable code; nothing in the gateway grows with what
callers send.
"""

from __future__ import annotations

from dataclasses import dataclass

from trivet.contracts.compute.console import SCREENSHOT_BYTES
from trivet.runtime.call import MAX_REQUEST_BYTES
from trivet.runtime.settings import GatewaySettings


@dataclass(frozen=True)
class Limits:
    """Bounds in force; sizes in bytes, times in seconds."""

    body_bytes: int = MAX_REQUEST_BYTES
    """A request's body; never more than a message of the bus takes."""

    body_read_s: float = 20.0
    """How long a body may take to arrive."""

    concurrent_requests: int = 256
    """Requests at work at once, streams of events not counted; more are told 429."""

    requests_per_token: int = 128
    """Requests at work at once for one token; more are told 429."""

    rate_per_s: float = 2000.0
    """Requests a second for one token, over time; more are told 429."""

    rate_burst: int = 4000
    """Requests of one token at once, after a silence."""

    denials_per_s: float = 5.0
    """Requests without a valid token a second for one address, over time; more are told 429,
    and neither looked up nor recorded in the audit trail."""

    denials_burst: int = 100
    """Requests without a valid token of one address at once, after a silence."""

    connections: int = 2048
    """Connections at once; more are closed."""

    connections_per_address: int = 1024
    """Connections at once from one address; more are closed."""

    head_bytes: int = 32 * 1024
    """A request line with its headers; more is told 431."""

    headers: int = 100
    """Headers of a request; more are told 431."""

    head_s: float = 10.0
    """How long a head may take to arrive; then it is told 408."""

    streams: int = 256
    """Streams (of events, consoles) open at once; more are told 429."""

    streams_per_user: int = 32
    """Streams open at once for one user; more are told 429."""

    event_buffer: int = 1000
    """Events kept for one slow client; the bus keeps the rest until it has read them."""

    event_keepalive_s: float = 15.0
    """A stream that has nothing to say says so, so that proxies leave it open."""

    download_bytes: int = SCREENSHOT_BYTES
    """A stream that is the body of a reply."""

    download_s: float = 20.0
    """How long such a body may take."""

    wait_max_s: float = 60.0
    """`?wait=` at most."""

    bearer_bytes: int = 4096
    """A bearer token at most."""

    identity_cache_size: int = 4096
    """Tokens whose caller is remembered."""

    identity_cache_s: float = 5.0
    """How long a caller is remembered; a revoked token is forgotten at once by its event, and
    by this time where the event did not come."""

    key_wait_s: float = 10.0
    """How long a repeat waits for the first request under its `Idempotency-Key`."""

    key_answer_bytes: int = 4_000_000
    """A kept answer at most, as it is stored; what is larger is asked anew."""

    audit_queue: int = 10_000
    """Audit entries that wait for the security service; more go to the log alone."""

    audit_batch: int = 500
    """Audit entries sent in one message."""

    audit_retry_s: float = 1.0
    """Pause before audit entries are sent again."""

    audit_flush_s: float = 5.0
    """How long a stop waits for the last audit entries."""

    health_s: float = 2.0
    """How long a service has to answer before it counts as not reachable; the answer is kept
    as long, so that asking often costs the services nothing."""

    @classmethod
    def of(cls, settings: GatewaySettings) -> Limits:
        """The bounds that the settings ask for; what they don't name stays."""
        return cls(
            body_bytes=min(settings.max_body_bytes, MAX_REQUEST_BYTES),
            body_read_s=settings.body_s,
            concurrent_requests=settings.max_requests,
            requests_per_token=settings.max_requests_per_token,
            rate_per_s=settings.rate_per_s,
            rate_burst=settings.rate_burst,
            denials_per_s=settings.denials_per_s,
            denials_burst=settings.denials_burst,
            connections=settings.max_connections,
            connections_per_address=settings.max_connections_per_address,
            head_bytes=settings.max_head_bytes,
            headers=settings.max_headers,
            head_s=settings.head_s,
            streams=settings.max_streams,
            streams_per_user=settings.max_streams_per_user,
            identity_cache_s=settings.token_cache_s,
            event_buffer=settings.event_buffer,
        )
