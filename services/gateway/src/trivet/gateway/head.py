"""The bounds of a connection before there is a request: how many, how large a head, how slow.

Uvicorn's fast protocol takes in a request line and headers of any size and number, and waits for
them for ever. Here a connection whose head is too large (431) or too slow (408) is told so and
closed, and so is one that sends what is no HTTP (400); all in the form of every other refusal.
Connections are bounded in all and for each address, so that one client can't take every place.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from http import HTTPStatus
from typing import ClassVar

from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from trivet.contracts.errors import MALFORMED, Refused
from trivet.contracts.gateway.codes import HEAD_TOO_LARGE, TOO_SLOW
from trivet.gateway.limits import Limits
from trivet.gateway.problems import MEDIA_TYPE, problem


class BoundedHead(HttpToolsProtocol):
    """A connection within the bounds. `of` makes the class for the bounds of one server."""

    limits: ClassVar[Limits]
    by_address: ClassVar[Counter[str]]

    _head_bytes = 0
    _in_head = True
    _timer: asyncio.TimerHandle | None = None
    _counted: str | None = None

    @classmethod
    def of(cls, limits: Limits) -> type[BoundedHead]:
        """The protocol of a server with these bounds."""
        return type("Head", (cls,), {"limits": limits, "by_address": Counter()})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, if there is room for it."""
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        self._counted = address
        self.by_address[address] += 1
        over = self.by_address.total() > self.limits.connections
        if over or self.by_address[address] > self.limits.connections_per_address:
            transport.abort()
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._stop_timer()
        self._uncount()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what came; it may hold the end of a head, a body, the next head."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > self.limits.head_bytes:
            accepted = f"at most {self.limits.head_bytes} bytes of head"
            self._refuse(Refused(HEAD_TOO_LARGE, "the head is too large", hint=accepted))

    def on_message_begin(self) -> None:
        """A head begins: the first one was waited for since the connection was made."""
        if self._timer is None:
            self._wait_for_head()
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header; more than the bound are refused once the head is in."""
        if len(self.headers) <= self.limits.headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is in: what comes now is body."""
        self._in_head = False
        self._stop_timer()
        if len(self.headers) > self.limits.headers:
            accepted = f"at most {self.limits.headers} headers"
            self._refuse(Refused(HEAD_TOO_LARGE, "there are too many headers", hint=accepted))
            return
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is in: what comes now is the next head."""
        self._in_head, self._head_bytes = True, 0
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        """Take in a part of the body, unless the request was refused."""
        if not self.transport.is_closing():
            super().on_body(body)

    def handle_websocket_upgrade(self) -> None:
        """The connection becomes a websocket: those are counted as streams."""
        self._uncount()
        if not self.transport.is_closing():
            super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(Refused(MALFORMED, "this is no HTTP request", hint="HTTP/1.1"))

    def _wait_for_head(self) -> None:
        self._timer = self.loop.call_later(self.limits.head_s, self._too_slow)

    def _too_slow(self) -> None:
        detail = "the head did not arrive in time"
        self._refuse(Refused(TOO_SLOW, detail, hint=f"within {self.limits.head_s:g} s"))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _uncount(self) -> None:
        if self._counted is not None:
            self.by_address[self._counted] -= 1
            if not self.by_address[self._counted]:
                del self.by_address[self._counted]
            self._counted = None

    def _refuse(self, error: Refused) -> None:
        """Tell the error and close, whatever else was under way on this connection."""
        self._stop_timer()
        if self.transport.is_closing():
            return
        body = to_json(problem(error, secrets.token_hex(8)))
        status = HTTPStatus(error.code.http_status)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {MEDIA_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
