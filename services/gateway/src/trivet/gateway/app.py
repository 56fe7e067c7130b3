"""The gateway put together: routes, events, health, and what runs beside them.

Every declared operation becomes one route to the same dispatcher. The few paths that are the
gateway's own (events, health, version, the OpenAPI document) are here; they are no operations
of a service.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import cached_property, partial

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import Response, StreamingResponse
from pydantic_core import to_json
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from trivet.contracts.errors import MALFORMED, Refused, TrivetError
from trivet.contracts.gateway.codes import METHOD, NO_ROUTE
from trivet.gateway.audit import AuditQueue
from trivet.gateway.audit_spool import AuditSpool
from trivet.gateway.dispatch import Dispatcher
from trivet.gateway.events import EventFeeds, Subscriber, as_sse
from trivet.gateway.filters import bus_subject, first_seq
from trivet.gateway.front import Front, PathTable
from trivet.gateway.health import HealthCheck, product_version
from trivet.gateway.idempotency import Answers
from trivet.gateway.identity import FORGET_ON, Identities
from trivet.gateway.limits import Limits
from trivet.gateway.metrics import Metrics
from trivet.gateway.node_streams import NodeStreams
from trivet.gateway.openapi import document
from trivet.gateway.problems import as_trivet_error, problem, problem_response
from trivet.gateway.requests import parse_query
from trivet.gateway.routes import ApiRoute, all_endpoints, routes
from trivet.gateway.status_page import StatusPage
from trivet.gateway.streams import OpenStreams
from trivet.runtime.bus import Bus, Subscription
from trivet.runtime.call import Client
from trivet.runtime.clock import Clock
from trivet.runtime.store import Store
from trivet.runtime.streams import Dialer

log = logging.getLogger(__name__)

SERVICE = "gateway"
_RESUBSCRIBE_S = 1.0
_WS_POLICY_VIOLATION = 1008
_WS_GOING_AWAY = 1001
_EVENT_PARAMETERS = frozenset({"subject", "since", "project"})


class Segment(StringConvertor):
    """One part of a path without ':', which sets a name apart from an action."""

    regex = "[^/:]+"


class Gateway:
    """The gateway of one process: an ASGI application and the tasks beside it. `store` is the
    bucket of kept answers; `holder` names this gateway in it, the same after a restart; `dialer`
    goes to the nodes that streams are on; `node` is its own, whose services it asks first."""

    def __init__(
        self,
        bus: Bus,
        store: Store,
        clock: Clock,
        limits: Limits,
        holder: str = "gateway",
        dialer: Dialer | None = None,
        spool: AuditSpool | None = None,
        node: str | None = None,
    ) -> None:
        self._bus = bus
        endpoints = all_endpoints()
        self._client = client = Client(bus, SERVICE, node)
        self._hearing: Subscription | None = None
        self._audit = AuditQueue(client, limits, spool)
        self._identities = Identities(client, clock, limits)
        self.limits = limits
        self.streams = OpenStreams(limits)
        self._feeds = EventFeeds(bus, self._identities, self.streams, clock, limits)
        self._health = HealthCheck(bus, client, clock, limits)
        answers = Answers(store, holder, clock, limits)
        self._dispatcher = Dispatcher(client, self._identities, self._audit, answers, clock, limits)
        self._node_streams = NodeStreams(
            client, self._dispatcher, dialer or Dialer(), self.streams, clock, limits
        )
        self._metrics = Metrics(client, self._identities)
        self._tasks: list[asyncio.Task[None]] = []
        table = routes(endpoints)
        self._table = table
        direct = [r for r in table if r.http.stream is None]
        handlers = PathTable((r.http.method, r.http.path, self._handler(r)) for r in direct)
        self.app = Front(handlers, self._application(table))

    @cached_property
    def _document(self) -> bytes:
        return to_json(document(self._table))

    async def start(self) -> None:
        """Start what runs beside the requests."""
        self._bus.on_reconnect(self._forget)
        self._hearing = await self._client.hear_starts()
        self._tasks = [
            asyncio.create_task(self._audit.run()),
            asyncio.create_task(self._watch_identities()),
        ]

    def end_streams(self) -> None:
        """End the streams, which would else hold up a stop for ever."""
        self._feeds.close()
        self._node_streams.close()

    async def stop(self) -> None:
        """End what runs beside the requests, and send the last audit entries."""
        self.end_streams()
        await self._audit.flush()
        if self._hearing is not None:
            await self._hearing.stop()
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def _application(self, table: tuple[ApiRoute, ...]) -> FastAPI:
        register_url_convertor("segment", Segment())
        page = StatusPage()
        own: list[BaseRoute] = [
            Route("/v1/health", _guarded(self._answer_health), methods=["GET"]),
            Route("/", _guarded(page.index), methods=["GET"]),
            Route("/console", _guarded(page.console), methods=["GET"]),
            Route("/screen", _guarded(page.screen), methods=["GET"]),
            Route("/page/{name:segment}", _guarded(page.part), methods=["GET"]),
            Route("/metrics", _guarded(self._metrics.own), methods=["GET"]),
            Route(
                "/metrics/{node:segment}/{service:segment}",
                _guarded(self._metrics.of_service),
                methods=["GET"],
            ),
            Route("/v1/version", _guarded(self._answer_version), methods=["GET"]),
            Route("/v1/openapi.json", _guarded(self._answer_document), methods=["GET"]),
            Route("/v1/events", _guarded(self._answer_events), methods=["GET"]),
            WebSocketRoute("/v1/events", self._talk_events),
        ]
        declared = [face for route in table for face in self._faces(route)]
        app = FastAPI(
            title="Trivet",
            routes=[*declared, *own],
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
        )
        app.add_exception_handler(HTTPException, _no_route)
        return app

    def _faces(self, route: ApiRoute) -> list[BaseRoute]:
        """What the server does at the path of an operation."""
        path = route.http.path.replace("}", ":segment}")
        found: list[BaseRoute] = [Route(path, self._handler(route), methods=[route.http.method])]
        if route.http.stream == "websocket":
            found.append(WebSocketRoute(path, partial(self._node_streams.talk, route)))
        return found

    def _handler(self, route: ApiRoute) -> Callable[[Request], Awaitable[Response]]:
        answer: Callable[[ApiRoute, Request], Awaitable[Response]]
        match route.http.stream:
            case "websocket":
                answer = self._node_streams.refuse
            case "body":
                answer = self._node_streams.download
            case None:
                answer = self._dispatcher.answer

        async def handle(request: Request) -> Response:
            return await answer(route, request)

        return handle

    async def _answer_health(self, request: Request) -> Response:
        health = await self._health.health()
        status = 200 if health.status == "ok" else 503
        return _json(health.model_dump_json().encode(), status)

    async def _answer_version(self, request: Request) -> Response:
        return _json(product_version().model_dump_json().encode())

    async def _answer_document(self, request: Request) -> Response:
        return _json(self._document)

    async def _answer_events(self, request: Request) -> Response:
        subscriber = _subscriber(request)
        await self._feeds.admit(subscriber)
        first = await self._feeds.first(subscriber)

        async def body() -> AsyncIterator[bytes]:
            yield b": connected\nretry: 2000\n\n"
            async for told in self._feeds.stream(subscriber, first):
                yield as_sse(told)

        return StreamingResponse(body(), media_type="text/event-stream", headers=_NO_STORE)

    async def _talk_events(self, socket: WebSocket) -> None:
        """Events over a WebSocket: messages `{"seq", "event"}`; a problem document, then the
        end, where they are refused."""
        await socket.accept()
        try:
            subscriber = _subscriber(socket)
            await self._feeds.admit(subscriber)
            first = await self._feeds.first(subscriber)
            async for told in self._feeds.stream(subscriber, first):
                event = told.event.model_dump(mode="json") if told.event else None
                await socket.send_json({"seq": told.seq, "event": event})
            await socket.close(_WS_GOING_AWAY)
        except TrivetError as error:
            await socket.send_json(problem(error, secrets.token_hex(8)))
            await socket.close(_WS_POLICY_VIOLATION)
        except WebSocketDisconnect:
            log.debug("a subscriber went away")

    async def _watch_identities(self) -> None:
        """Forget callers as soon as an event says that what they may do can have changed."""
        subject = FORGET_ON[0].rsplit(".", 2)[0] + ".>"
        while True:
            try:
                async for message in self._bus.events(subject, since_seq=None):
                    self._identities.on_event(message.subject)
            except TrivetError as error:
                log.warning("events of the security service: %s", error)
            self._identities.forget()
            await asyncio.sleep(_RESUBSCRIBE_S)

    async def _forget(self) -> None:
        self._identities.forget()


_NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def _json(data: bytes, status: int = 200) -> Response:
    return Response(data, status_code=status, media_type="application/json", headers=_NO_STORE)


def _subscriber(connection: Request | WebSocket) -> Subscriber:
    query = parse_query(connection.query_params.multi_items())
    if unknown := set(query) - _EVENT_PARAMETERS:
        hint = f"known: {', '.join(sorted(_EVENT_PARAMETERS))}"
        raise Refused(MALFORMED, f"not accepted: {min(unknown)!a}", hint=hint)
    return Subscriber(
        authorization=connection.headers.get("Authorization"),
        address=connection.client.host if connection.client else None,
        subject=bus_subject(query.get("subject")),
        since=first_seq(query.get("since"), connection.headers.get("Last-Event-ID")),
        project=query.get("project"),
    )


def _guarded(
    handler: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """The handler, with every failure told as a problem document."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as raised:  # noqa: BLE001 - the last line before the caller
            request_id = secrets.token_hex(8)
            return problem_response(as_trivet_error(raised, request_id), request_id)

    return handle


async def _no_route(request: Request, raised: Exception) -> Response:
    """What the router itself refuses: no such path, or not with this method."""
    assert isinstance(raised, HTTPException)
    headers: dict[str, str] = dict(raised.headers or {})
    if raised.status_code == 405:
        detail = f"{request.method} is not for {request.url.path!a}"
        allowed = headers.get("Allow")
        error: TrivetError = Refused(METHOD, detail, hint=f"allowed: {allowed}")
    else:
        detail = f"nothing is at {request.url.path[:200]!a}"
        error = Refused(NO_ROUTE, detail, hint="GET /v1/openapi.json lists all paths")
    response = problem_response(error, secrets.token_hex(8))
    response.headers.update(headers)
    return response
