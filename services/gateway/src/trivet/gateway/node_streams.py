"""Streams of nodes, brought to callers: over a WebSocket, or as the body of a reply.

The owner of the operation decides and answers a ticket; from there on the bytes go from the node
through this gateway and never over the bus. Before a WebSocket is accepted everything that can be
refused is a problem document, as for any call. Who holds one is verified again every few seconds:
a token that is revoked, or a right that is taken, ends the stream, also one that was joined with a
ticket which that token had made.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress

from fastapi import Request, WebSocket
from fastapi.responses import Response
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect

from trivet.contracts.access import Audience
from trivet.contracts.errors import (
    DRIVER_FAILED,
    UNAUTHENTICATED,
    Fatal,
    Refused,
    Retry,
    TrivetError,
)
from trivet.contracts.gateway.codes import UPGRADE
from trivet.contracts.security.endpoints.token_holds import ENDPOINT as HOLDS
from trivet.contracts.security.endpoints.token_holds import HoldsRequest
from trivet.contracts.stream import OnBehalf, StreamTicket
from trivet.gateway.dispatch import ANONYMOUS, Dispatcher, Exchange
from trivet.gateway.limits import Limits
from trivet.gateway.problems import REQUEST_ID, as_trivet_error, problem_response
from trivet.gateway.requests import assemble, parse_query
from trivet.gateway.routes import ApiRoute
from trivet.gateway.streams import OpenStreams
from trivet.runtime.call import Client
from trivet.runtime.clock import Clock
from trivet.runtime.streams import CHUNK_BYTES, Dialer, Ends, until_one_ends

log = logging.getLogger(__name__)

SUBPROTOCOL = "binary"
"""What noVNC and the like offer, and get; who offers nothing gets binary messages, too."""

DONE, GOING_AWAY, POLICY_VIOLATION = 1000, 1001, 1008
REASON_BYTES = 120


class NodeStreams:
    """The open streams of this gateway."""

    def __init__(
        self,
        client: Client,
        dispatcher: Dispatcher,
        dialer: Dialer,
        streams: OpenStreams,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._client = client
        self._dispatcher = dispatcher
        self._dialer = dialer
        self._streams = streams
        self._clock = clock
        self._limits = limits
        self._closing = asyncio.Event()

    def close(self) -> None:
        """End all streams."""
        self._closing.set()

    async def talk(self, route: ApiRoute, socket: WebSocket) -> None:
        """Bring a stream over a WebSocket; never raises."""
        exchange = _exchange(route, socket)
        async with AsyncExitStack() as stack:
            try:
                ends, on_behalf = await self._opened(exchange, socket, stack)
            except Exception as raised:  # noqa: BLE001 - the last line: every failure is a problem document
                error = as_trivet_error(raised, exchange.request_id)
                self._dispatcher.record(exchange, error)
                await socket.send_denial_response(problem_response(error, exchange.request_id))
                return
            self._dispatcher.record(exchange, None)
            offered = socket.scope.get("subprotocols", ())
            await socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
            with suppress(WebSocketDisconnect, OSError):
                await self._carry(exchange, socket, ends, on_behalf)

    async def download(self, route: ApiRoute, request: Request) -> Response:
        """A stream to its end, as the body of a reply; never raises."""
        exchange = _exchange(route, request)
        try:
            async with AsyncExitStack() as stack:
                (reader, _), _ = await self._opened(exchange, request, stack)
                data = await self._read(reader)
        except Exception as raised:  # noqa: BLE001 - the last line: every failure is a problem document
            error = as_trivet_error(raised, exchange.request_id)
            self._dispatcher.record(exchange, error)
            return problem_response(error, exchange.request_id)
        self._dispatcher.record(exchange, None)
        headers = {REQUEST_ID: exchange.request_id, "Cache-Control": "no-store"}
        return Response(data, media_type=route.http.media, headers=headers)

    async def refuse(self, route: ApiRoute, request: Request) -> Response:
        """The reply to a plain request for what only a WebSocket gets."""
        exchange = _exchange(route, request)
        error = Refused(UPGRADE, f"{route.endpoint.op} is a WebSocket", hint="Upgrade: websocket")
        response = problem_response(error, exchange.request_id)
        response.headers["Upgrade"] = "websocket"
        return response

    async def _opened(
        self, exchange: Exchange, connection: HTTPConnection, stack: AsyncExitStack
    ) -> tuple[Ends, OnBehalf | None]:
        """Ask the owner for a ticket and go to the node; closed with `stack`. And on whose behalf
        it is, where that is not the caller's."""
        await self._dispatcher.admit(exchange, connection)
        user = exchange.caller.user if exchange.caller else ANONYMOUS
        stack.enter_context(self._streams.take(user))
        query = parse_query(connection.query_params.multi_items())
        endpoint = exchange.route.endpoint
        asked = assemble(endpoint, exchange.path, query, {})
        ticket: StreamTicket = await self._client.call(
            endpoint, asked, caller=exchange.caller, request_id=exchange.request_id
        )
        return await stack.enter_async_context(self._dialer.dial(ticket)), ticket.on_behalf

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        data = bytearray()
        async with asyncio.timeout(self._limits.download_s):
            while chunk := await reader.read(CHUNK_BYTES):
                data += chunk
                if len(data) > self._limits.download_bytes:
                    raise Fatal(DRIVER_FAILED, "the node sends more than can be taken")
        return bytes(data)

    async def _carry(
        self, exchange: Exchange, socket: WebSocket, ends: Ends, on_behalf: OnBehalf | None
    ) -> None:
        """Carry bytes both ways until one side, the right to it, or this gateway ends."""
        reader, writer = ends
        code, reason = DONE, "the stream has ended"
        try:
            await until_one_ends(
                _from_client(socket, writer),
                _to_client(reader, socket),
                self._verify(exchange, socket, on_behalf),
                self._end(),
            )
        except TrivetError as error:
            code, reason = POLICY_VIOLATION, str(error)
        if self._closing.is_set():
            code, reason = GOING_AWAY, "the gateway goes down"
        with suppress(RuntimeError):  # the caller has closed it already
            await socket.close(code, reason.encode()[:REASON_BYTES].decode(errors="ignore"))

    async def _verify(
        self, exchange: Exchange, socket: WebSocket, on_behalf: OnBehalf | None
    ) -> None:
        """Raise once the caller, or the one whose ticket it was, may not any more."""
        public = exchange.route.endpoint.policy.audience is Audience.PUBLIC
        while True:
            await self._clock.sleep(self._limits.identity_cache_s)
            try:
                if not public:
                    await self._dispatcher.admit(exchange, socket)
                elif on_behalf is not None:
                    await self._still_holds(on_behalf)
            except Retry as error:
                log.info("a stream's caller can't be verified now: %s", error)

    async def _still_holds(self, on_behalf: OnBehalf) -> None:
        answer = await self._client.call(HOLDS, HoldsRequest(on_behalf=on_behalf))
        if not answer.holds:
            raise Refused(UNAUTHENTICATED, "the token that made the ticket does not count any more")

    async def _end(self) -> None:
        await self._closing.wait()


async def _from_client(socket: WebSocket, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("bytes")
            writer.write(data if data is not None else message.get("text", "").encode())
            await writer.drain()


async def _to_client(reader: asyncio.StreamReader, socket: WebSocket) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK_BYTES):
            await socket.send_bytes(data)


def _exchange(route: ApiRoute, connection: HTTPConnection) -> Exchange:
    path = connection.path_params
    address = connection.client.host if connection.client else None
    return Exchange(route, path, address, target=path.get("name"))
