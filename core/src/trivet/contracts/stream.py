"""Byte streams, which never cross the bus: who asks gets a ticket, and goes to the node itself.

An operation that opens a stream answers a `StreamTicket` over the bus: on which node the bytes
are, where that node listens, and a secret that opens the stream once, within a short while. A
gateway on the same node takes the unix socket; any other takes the TCP address, under TLS with a
certificate of the cluster's authority, so that the secret is only ever shown to that node.

On the connection the caller says the secret (hex) and a newline; the node answers a line: `+`, and
from then on the bytes are the stream's, or `-` with an `ErrorBody` in JSON, and the end.
"""

from __future__ import annotations

from trivet.contracts.model import Model, NodeName

SECRET_HEX = 64
"""Hex digits of a secret: 256 bits."""


class OnBehalf(Model):
    """Who had a ticket made for somebody without a token, and the right that it was made by: the
    stream lasts as long as that one could open it."""

    user: str
    token_id: str
    permission: str
    project: str | None


class StreamTicket(Model):
    """Opens one stream, once, within `expires_s` seconds. `socket` is a path on `node` itself;
    `host` and `port` (None: the node has no certificate) are for all others."""

    node: NodeName
    secret: str
    expires_s: float
    socket: str | None = None
    host: str | None = None
    port: int | None = None
    on_behalf: OnBehalf | None = None

    def __repr__(self) -> str:
        return f"<StreamTicket {self.node} {self.expires_s:g} s>"

    __str__ = __repr__
