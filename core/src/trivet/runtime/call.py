"""Calls between services: from an endpoint and a request to a response or an error.

The one place where models become bytes and back, where a deadline is given, and where an error
becomes a reply: a handler's `TrivetError` travels as an `ErrorBody`, bad input as
`Refused(MALFORMED)` with each wrong field, and anything else as `Fatal(INTERNAL)` that names
only a request id; its traceback goes to the log of the process where it happened.

What any instance may answer is asked of the caller's own node first, and of the others where
nobody listens there. The bus would choose one at random: half of them across the network, a node
that has just died among them until the bus knows, and each call of a caller another copy of the
state, of which one may not have yet what the other wrote.

What the bus can't carry would never arrive, and its caller would wait for nothing. So a list
whose page is too large is made anew with half the limit, until it fits (its cursor then leads
to the rest), and any other answer of that size is told as `bus.reply_too_large`.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trivet.contracts import all_codes
from trivet.contracts.access import Caller, service_caller
from trivet.contracts.endpoint import Endpoint, ListRequest, RequestT, ResponseT
from trivet.contracts.errors import (
    INTERNAL,
    MALFORMED,
    REPLY_TOO_LARGE,
    UNAVAILABLE,
    ErrorBody,
    Fatal,
    FieldError,
    Refused,
    Retry,
    TrivetError,
    from_body,
)
from trivet.contracts.model import Model
from trivet.runtime.bus import MAX_PAYLOAD_BYTES, Bus, Handler, Message, Subscription
from trivet.runtime.metrics import CALLS_FAILED, SERVED, SERVED_SECONDS
from trivet.runtime.starts import InFlight, Lost
from trivet.runtime.telemetry import extract_context, inject_context, span

log = logging.getLogger(__name__)

CALLER_HEADER = "Trivet-Caller"
REQUEST_ID_HEADER = "Trivet-Request-Id"
NONCE_HEADER = "Trivet-Nonce"
ERROR_PREFIX = b"!"
MAX_REQUEST_BYTES = 4_000_000
"""Of a request with its defaults: a group of ten thousand rules is about two million."""

MAX_REPLY_BYTES = MAX_PAYLOAD_BYTES
FIELDS_TOLD = 20
"""Wrong fields that an error names; who sent a thousand learns of the first ones."""

WHERE_CHARS = 200
MESSAGE_CHARS = 500
_NONCE = re.compile(r"[0-9a-f]{16}")

all_codes.declare()


@dataclass(frozen=True)
class Call:
    """Who calls, under which request id, and how long an answer is of use. With a `nonce`, the
    same call may have been made before: what it makes has an id that comes of it."""

    caller: Caller
    request_id: str
    remaining_s: float | None = None
    nonce: str | None = None


EndpointHandler = Callable[[Any, Call], Awaitable[Model]]


class Client:
    """Calls other services (and one's own node agents) over the bus; `home` is the node that
    the caller is on, if it is on one."""

    def __init__(self, bus: Bus, service: str, home: str | None = None) -> None:
        self._bus = bus
        self._home = home
        self._self = service_caller(service)
        self._in_flight = InFlight()

    async def hear_starts(self) -> Subscription:
        """End calls that died with their process when its successor starts (`starts`)."""
        return await self._in_flight.hear(self._bus)

    async def call(
        self,
        endpoint: Endpoint[RequestT, ResponseT],
        request: RequestT,
        *,
        node: str | None = None,
        caller: Caller | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
        nonce: str | None = None,
    ) -> ResponseT:
        """The response, or the error that the other side raised, or a `Retry` of the bus.

        `caller` is on whose behalf (default: this service itself). `nonce` (16 hex) is the same
        for every repeat of one call, so that a create makes one resource.
        """
        reply = await self.call_raw(
            endpoint,
            request,
            node=node,
            caller=caller,
            request_id=request_id,
            timeout_s=timeout_s,
            nonce=nonce,
        )
        try:
            return endpoint.response.model_validate_json(reply)
        except ValidationError as error:
            raise _unreadable(endpoint, error) from error

    async def call_raw(
        self,
        endpoint: Endpoint[RequestT, ResponseT],
        request: RequestT,
        *,
        node: str | None = None,
        caller: Caller | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
        nonce: str | None = None,
    ) -> bytes:
        """As `call`, with the response as the JSON that its owner wrote: for who hands it on."""
        headers = {
            CALLER_HEADER: (caller or self._self).model_dump_json(),
            REQUEST_ID_HEADER: request_id or secrets.token_hex(8),
        }
        if nonce is not None:
            headers[NONCE_HEADER] = nonce
        with span(f"call {endpoint.service} {endpoint.op}"):
            inject_context(headers)
            data = request.model_dump_json().encode()
            wait_s = timeout_s or endpoint.deadline_s(request)
            try:
                try:
                    reply = await self._ask(endpoint, data, node, wait_s, headers)
                except Lost:
                    if endpoint.changes:
                        raise
                    reply = await self._ask(endpoint, data, node, wait_s, headers)
                if reply.startswith(ERROR_PREFIX):
                    raise _told(endpoint, reply)
            except TrivetError as error:
                CALLS_FAILED.labels(endpoint.service, endpoint.op, error.code.value).inc()
                raise
            return reply

    async def _ask(
        self,
        endpoint: Endpoint[Any, Any],
        data: bytes,
        node: str | None,
        timeout_s: float,
        headers: dict[str, str],
    ) -> bytes:
        if self._home is not None and not endpoint.per_node:
            try:
                async with self._in_flight.awaiting(endpoint.service, self._home):
                    return await self._bus.request(
                        endpoint.subject_at(self._home), data, timeout_s=timeout_s, headers=headers
                    )
            except Retry as error:
                if error.code is not UNAVAILABLE:
                    raise
        async with self._in_flight.awaiting(endpoint.service, node):
            return await self._bus.request(
                endpoint.subject(node), data, timeout_s=timeout_s, headers=headers
            )


def _told(endpoint: Endpoint[Any, Any], reply: bytes) -> TrivetError:
    """The error that a reply tells."""
    try:
        return from_body(ErrorBody.model_validate_json(reply[len(ERROR_PREFIX) :]))
    except ValidationError as error:
        return _unreadable(endpoint, error)


def _unreadable(endpoint: Endpoint[Any, Any], error: ValidationError) -> Fatal:
    log.warning("an answer of %s: %s", endpoint.op, error)
    detail = f"the answer of {endpoint.op} can't be read"
    return Fatal(INTERNAL, detail, hint="services of different versions?")


def answer(endpoint: Endpoint[Any, Any], handler: EndpointHandler) -> Handler:
    """A bus handler that runs `handler` for `endpoint` and always answers."""
    seconds = SERVED_SECONDS.labels(endpoint.op)
    good = SERVED.labels(endpoint.op, "ok")

    async def handle(message: Message) -> bytes:
        began = time.perf_counter()
        with extract_context(message.headers), span(f"serve {endpoint.service} {endpoint.op}"):
            try:
                reply = await _served(endpoint, handler, message)
                good.inc()
            except TrivetError as error:
                SERVED.labels(endpoint.op, error.code.value).inc()
                reply = _error_reply(error)
        seconds.observe(time.perf_counter() - began)
        return reply

    return handle


async def _served(
    endpoint: Endpoint[Any, Any], handler: EndpointHandler, message: Message
) -> bytes:
    """The handler's answer; whatever fails is a `TrivetError` that can be told."""
    request_id = message.headers.get(REQUEST_ID_HEADER, "-")
    try:
        request = _parse(endpoint, message.data)
        caller = Caller.model_validate_json(message.headers.get(CALLER_HEADER, ""))
        nonce = message.headers.get(NONCE_HEADER, "")
        made_of = nonce if _NONCE.fullmatch(nonce) else None
        call = Call(caller, request_id, message.remaining_s, made_of)
        return await _fitting(endpoint, handler, request, call)
    except TrivetError:
        raise
    except ValidationError as error:
        raise malformed(error) from error
    except Exception as error:
        log.exception("%s failed (request %s)", endpoint.op, request_id)
        detail = f"{endpoint.op} failed unexpectedly; request {request_id}"
        raise Fatal(INTERNAL, detail, hint="see the service's log") from error


async def _fitting(
    endpoint: Endpoint[Any, Any], handler: EndpointHandler, request: Any, call: Call
) -> bytes:
    """The handler's answer, as bytes that a message can carry."""
    while True:
        reply = (await handler(request, call)).model_dump_json().encode()
        if len(reply) <= MAX_REPLY_BYTES:
            return reply
        if not isinstance(request, ListRequest) or request.limit == 1:
            raise Fatal(
                REPLY_TOO_LARGE,
                f"the answer of {endpoint.op} has {len(reply)} bytes",
                hint=f"a message carries {MAX_REPLY_BYTES}: ask for less at once",
            )
        request = request.model_copy(update={"limit": request.limit // 2})


def _parse(endpoint: Endpoint[Any, Any], data: bytes) -> Any:
    if len(data) > MAX_REQUEST_BYTES:
        raise Refused(
            MALFORMED, f"the request has {len(data)} bytes", hint=f"at most {MAX_REQUEST_BYTES}"
        )
    return endpoint.request.model_validate_json(data)


def _error_reply(error: TrivetError) -> bytes:
    return ERROR_PREFIX + error.body().model_dump_json().encode()


def malformed(error: ValidationError) -> Refused:
    """Pydantic's findings as our own error: each field, what is wrong, what is accepted."""
    found = error.errors(include_url=False, include_input=False)
    fields = tuple(
        FieldError(
            where=".".join(_shown(part) for part in item["loc"])[:WHERE_CHARS] or "(whole)",
            message=item["msg"][:MESSAGE_CHARS],
            accepted=_accepted(item.get("ctx")),
        )
        for item in found[:FIELDS_TOLD]
    )
    named = ", ".join(f.where for f in fields[:5])
    return Refused(MALFORMED, f"not accepted: {named}", errors=fields)


def _shown(part: int | str) -> str:
    """A part of a place; a name is the caller's, and may hold anything."""
    return str(part).encode("ascii", "backslashreplace").decode() or '""'


def _accepted(context: dict[str, Any] | None) -> str | None:
    if not context:
        return None
    plain = {k: v for k, v in context.items() if isinstance(v, (str, int, float))}
    return json.dumps(plain) if plain else None
