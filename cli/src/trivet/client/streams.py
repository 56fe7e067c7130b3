"""Streams from the API: a WebSocket to a console.

Apart from the client, since only this needs a WebSocket library, which takes its time to load.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from trivet.client.wire import error_of
from trivet.contracts.errors import UNAVAILABLE, Refused, Retry

CONNECT_S = 15.0
SUBPROTOCOL = "binary"


class Stream:
    """A stream of bytes in both directions."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def __iter__(self) -> Iterator[bytes]:
        """What comes, until the end. Raises `Refused` where the gateway ended it for a reason."""
        try:
            while True:
                message = self._connection.recv()
                yield message.encode() if isinstance(message, str) else message
        except WebSocketException:
            code, reason = self._connection.close_code, self._connection.close_reason
        if code not in (1000, 1001):
            raise Refused(UNAVAILABLE, f"the stream was ended: {reason or f'code {code}'}")

    def send(self, data: bytes) -> bool:
        """Send; False where the stream has ended."""
        try:
            self._connection.send(data)
        except WebSocketException:
            return False
        return True

    def close(self) -> None:
        """End it."""
        self._connection.close()


@contextmanager
def joined(
    address: str, headers: Mapping[str, str], trust: ssl.SSLContext | None
) -> Iterator[Stream]:
    """The stream at `address` (ws or wss), closed with the block. Raises what the gateway says."""
    try:
        with connect(
            address,
            ssl=trust,
            additional_headers=dict(headers),
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
            compression=None,
            proxy=None,
            open_timeout=CONNECT_S,
        ) as connection:
            assert isinstance(connection, ClientConnection)
            yield Stream(connection)
    except InvalidStatus as error:
        reply = error.response
        raise error_of(
            reply.status_code, bytes(reply.body), reply.headers.get("Retry-After")
        ) from error
    except (OSError, InvalidHandshake) as error:
        raise Retry(UNAVAILABLE, f"can't reach {address}: {error}") from error
