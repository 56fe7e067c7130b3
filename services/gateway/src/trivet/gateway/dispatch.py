"""One API call from request to reply, the same way for every operation.

In order: who calls (401), whether it may (403), what it asks (400), then the owner's answer, and
with `?wait=` the answer once the resource has settled or the time is over. Whatever happens, the
reply is the resource or a problem document, and what changes something or was refused for want
of right goes to the audit trail.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from starlette.requests import HTTPConnection

from trivet.contracts.access import Audience, Caller
from trivet.contracts.endpoint import CreateRequest, Endpoint
from trivet.contracts.errors import (
    FORBIDDEN,
    MALFORMED,
    TIMEOUT,
    TOO_MANY,
    Refused,
    Retry,
    TrivetError,
    from_body,
)
from trivet.contracts.gateway.codes import MEDIA_TYPE, TOO_LARGE, TOO_SLOW
from trivet.contracts.model import Model
from trivet.contracts.resource import Resource
from trivet.contracts.security.audit import AuditEntry
from trivet.gateway import idempotency
from trivet.gateway.audit import AuditQueue
from trivet.gateway.gather import ask, may_ask
from trivet.gateway.idempotency import HEADER, REPLAYED, Answer, Answers, Asked, read_key
from trivet.gateway.identity import Identities
from trivet.gateway.limits import Limits
from trivet.gateway.problems import REQUEST_ID, as_trivet_error, problem_response
from trivet.gateway.requests import assemble, parse_body, parse_if_match, parse_query, take_wait
from trivet.gateway.routes import ApiRoute
from trivet.gateway.settle import settle
from trivet.runtime.call import MAX_REQUEST_BYTES, Client
from trivet.runtime.clock import Clock
from trivet.runtime.metrics import http_figures
from trivet.runtime.telemetry import extract_context, span

ANONYMOUS = "anonymous"
_JSON = re.compile(r"application/(json|merge-patch\+json)", re.IGNORECASE)
_REVISION = re.compile(rb'"revision":([0-9]+)')
_TARGET = re.compile(r"[ -~]{0,63}")
_DETAIL_CHARS = 500
_LEASE_MARGIN_S = 10.0
_SURELY_FITS = 16_384
"""A body up to this size fits a message of the bus, whatever defaults are filled in."""


@dataclass
class Exchange:
    """What is known so far of a call that is at work; the audit record is made of it."""

    route: ApiRoute
    path: Mapping[str, str]
    address: str | None
    request_id: str = field(default_factory=lambda: secrets.token_hex(8))
    """Ours, never the caller's: the audit trail records each request id once."""
    caller: Caller | None = None
    behind: tuple[Endpoint[Any, Any], ...] = ()
    """The operations behind the route that the caller may use."""
    target: str | None = None

    @property
    def project(self) -> str | None:
        """The project of the path."""
        return self.path.get("project")


class Dispatcher:
    """Answers API calls by asking the services that own the operations."""

    def __init__(
        self,
        client: Client,
        identities: Identities,
        audit: AuditQueue,
        answers: Answers,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._client = client
        self._identities = identities
        self._audit = audit
        self._answers = answers
        self._clock = clock
        self._limits = limits
        self._at_work = 0
        self._by_token: Counter[str] = Counter()

    async def answer(self, route: ApiRoute, request: Request) -> Response:
        """The reply to a call; never raises."""
        began = time.perf_counter()
        response = await self._answer(route, request)
        seconds, requests = http_figures(route.endpoint.op, response.status_code)
        seconds.observe(time.perf_counter() - began)
        requests.inc()
        return response

    async def _answer(self, route: ApiRoute, request: Request) -> Response:
        path = request.path_params
        address = request.client.host if request.client else None
        exchange = Exchange(route, path, address, target=path.get("name"))
        self._at_work += 1
        try:
            if self._at_work > self._limits.concurrent_requests:
                raise Retry(TOO_MANY, "the gateway is at its bound", retry_after_s=1)  # noqa: TRY301
            with extract_context(request.headers), span(f"http {route.endpoint.op}"):
                response = await self._perform(exchange, request)
            await self._audit.saved()
            return response
        except Exception as raised:  # noqa: BLE001 - the last line: every failure is a problem document
            error = as_trivet_error(raised, exchange.request_id)
            self.record(exchange, error)
            await self._audit.saved()
            return problem_response(error, exchange.request_id)
        finally:
            self._at_work -= 1
            self._audit.end(self._entry(exchange, None))

    async def _perform(self, exchange: Exchange, request: Request) -> Response:
        await self.admit(exchange, request)
        token = exchange.caller.token_id or exchange.caller.user if exchange.caller else ANONYMOUS
        if self._by_token[token] >= self._limits.requests_per_token:
            hint = "gateway.max_requests_per_token"
            raise Retry(TOO_MANY, "this token has too many requests at work", hint=hint)
        self._by_token[token] += 1
        try:
            return await self._work(exchange, request)
        finally:
            self._by_token[token] -= 1
            if not self._by_token[token]:
                del self._by_token[token]

    async def _work(self, exchange: Exchange, request: Request) -> Response:
        """Read what is asked, and have it done."""
        route = exchange.route
        query = parse_query(request.query_params.multi_items())
        wait_s = take_wait(query, self._limits.wait_max_s) if route.waits else 0.0
        data = await self._body(request)
        body = parse_body(data)
        revision = parse_if_match(request.headers.get("If-Match"))
        asked = assemble(route.endpoint, exchange.path, query, body, revision)
        if isinstance(asked, CreateRequest):
            exchange.target = asked.meta.name
        if len(data) > _SURELY_FITS and len(asked.model_dump_json()) > MAX_REQUEST_BYTES:
            hint = f"at most {MAX_REQUEST_BYTES} bytes"
            raise Refused(TOO_LARGE, "the request is too large with its defaults", hint=hint)
        if route.endpoint.changes and await request.is_disconnected():
            # It waited here (this process was stopped) until nobody waited for it, and may have
            # been asked of another gateway since.
            raise Retry(TIMEOUT, "its caller had gone before it began")
        key = request.headers.get(HEADER)
        if key is not None and route.http.method == "POST":
            once = self._asked(exchange, request, key, query, body)
            return await self._answer_once(exchange, asked, wait_s, once)
        if not wait_s and not route.endpoint.changes and len(exchange.behind) == 1:
            return await self._relay(exchange, asked)
        response = await self._call(exchange, asked, wait_s)
        self.record(exchange, None)
        return _reply(route, response, exchange.request_id)

    async def _relay(self, exchange: Exchange, asked: Model) -> Response:
        """What one service answers to a question, handed on as it wrote it."""
        endpoint = exchange.behind[0]
        body = await self._client.call_raw(
            endpoint, asked, caller=exchange.caller, request_id=exchange.request_id
        )
        revision = None
        if issubclass(endpoint.response, Resource):
            # The first is that of `meta`: what comes before holds texts alone, in which JSON
            # escapes the quotes.
            found = _REVISION.search(body)
            revision = int(found[1]) if found else None
        return _response(exchange.route.http.status, body, revision, exchange.request_id)

    async def _call(
        self, exchange: Exchange, asked: Model, wait_s: float, nonce: str | None = None
    ) -> Model:
        """The owner's answer, and with `wait_s` the resource once it has settled."""
        route = exchange.route
        call = partial(
            self._client.call,
            caller=exchange.caller,
            request_id=exchange.request_id,
            nonce=nonce,
        )
        if route.endpoint.changes:
            self._audit.begin(self._entry(exchange, None))
        response = await ask(call, exchange.behind, asked)
        if wait_s and route.get and isinstance(response, Resource):
            return await settle(
                self._client, route.get, response, wait_s, exchange.caller, self._clock
            )
        return response

    def _asked(
        self,
        exchange: Exchange,
        request: Request,
        key: str,
        query: Mapping[str, str],
        body: Mapping[str, Any],
    ) -> Asked:
        """The request under its `Idempotency-Key`; how long it waits is no part of it."""
        if exchange.caller is None:
            raise Refused(MALFORMED, f"{HEADER} goes with a token: here is none needed")
        bearer = request.headers["Authorization"].partition(" ")[2].strip()
        what = {"op": exchange.route.endpoint.op, "path": dict(exchange.path)}
        return idempotency.asked(bearer, read_key(key), {**what, "query": query, "body": body})

    async def _answer_once(
        self, exchange: Exchange, asked: Model, wait_s: float, once: Asked
    ) -> Response:
        """The first answer under the request's key."""
        route = exchange.route

        async def call(nonce: str) -> Answer:
            response = await self._call(exchange, asked, wait_s, nonce)
            etag = response.meta.revision if isinstance(response, Resource) else None
            return Answer(status=route.http.status, revision=etag, body=response.model_dump_json())

        lease_s = route.endpoint.timeout_s + wait_s + _LEASE_MARGIN_S
        answer = await self._answers.once(once, lease_s, call)
        if not answer.replayed:
            self.record(exchange, None)
        response = (
            problem_response(from_body(answer.error), exchange.request_id)
            if answer.error
            else _response(answer.status, answer.body, answer.revision, exchange.request_id)
        )
        if answer.replayed:
            response.headers[REPLAYED] = "true"
        return response

    async def admit(self, exchange: Exchange, request: HTTPConnection) -> None:
        """Find out who calls, and refuse who may not."""
        policy = exchange.route.endpoint.policy
        if policy.audience is not Audience.PUBLIC:
            header = request.headers.get("Authorization")
            exchange.caller = await self._identities.caller(header, exchange.address)
        exchange.behind = may_ask(exchange.route, exchange.caller, exchange.project)
        if not exchange.behind:
            where = f"in project {exchange.project!a}" if exchange.project else "in the cluster"
            user = exchange.caller.user if exchange.caller else ANONYMOUS
            raise Refused(
                FORBIDDEN,
                f"{user} has no {policy.permission or policy.audience.value} {where}",
                hint="an administrator can bind a role with it: `trivet user edit`",
            )

    async def _body(self, request: Request) -> bytes:
        """The body, within its bounds of size and time."""
        declared = request.headers.get("Content-Length", "0")
        if declared.isdigit() and int(declared[:18]) > self._limits.body_bytes:
            raise self._too_large()
        data = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_read_s):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > self._limits.body_bytes:
                        raise self._too_large()
        except TimeoutError as error:
            raise Refused(TOO_SLOW, "the body did not arrive in time") from error
        content_type = request.headers.get("Content-Type", "")
        if data and not _JSON.match(content_type):
            hint = "Content-Type: application/json"
            raise Refused(MEDIA_TYPE, f"the body is {content_type!a}", hint=hint)
        return bytes(data)

    def _too_large(self) -> Refused:
        hint = f"at most {self._limits.body_bytes} bytes"
        return Refused(TOO_LARGE, "the body is too large", hint=hint)

    def record(self, exchange: Exchange, error: TrivetError | None) -> None:
        """Record what changes something, and what was refused for want of right."""
        endpoint = exchange.route.endpoint
        denied = error is not None and error.code.http_status in (401, 403)
        if not endpoint.changes and not denied:
            return
        self._audit.record(self._entry(exchange, error))

    def _entry(self, exchange: Exchange, error: TrivetError | None) -> AuditEntry:
        caller = exchange.caller
        return AuditEntry(
            at=self._clock.now(),
            user=caller.user if caller else ANONYMOUS,
            token_id=caller.token_id if caller else None,
            address=exchange.address,
            op=exchange.route.endpoint.op,
            project=_plain(exchange.project),
            target=_plain(exchange.target),
            outcome=error.code.value if error else "ok",
            request_id=exchange.request_id,
            detail=error.detail[:_DETAIL_CHARS] if error else "",
        )


def _plain(text: str | None) -> str | None:
    """A name as it came, if it is one that a log can show; else its ASCII form, cut."""
    if text is None or _TARGET.fullmatch(text):
        return text
    return ascii(text)[:64]


def _reply(route: ApiRoute, response: Model, request_id: str) -> Response:
    revision = response.meta.revision if isinstance(response, Resource) else None
    return _response(route.http.status, response.model_dump_json(), revision, request_id)


def _response(status: int, body: str | bytes, revision: int | None, request_id: str) -> Response:
    headers = {REQUEST_ID: request_id}
    if revision is not None:
        headers["ETag"] = f'"{revision}"'
    return Response(body, status_code=status, media_type="application/json", headers=headers)
