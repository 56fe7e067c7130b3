"""One operation that several services have, each for its own resources: asked of all of them.

Alarms are such a kind. A list is put together page by page, service after service; what names
one resource is asked of all at once, and the one that has it answers. A caller sees what it may
see: services whose policy it does not meet are not asked. In a list, a service that can't be
reached is named in `missing`, since that is just when the others' alarms are wanted; anything
else then fails as a call to that service would.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from trivet.contracts.access import Caller, allowed
from trivet.contracts.endpoint import Endpoint, ListRequest
from trivet.contracts.errors import INVALID, NOT_FOUND, Refused, Retry
from trivet.contracts.model import Model
from trivet.gateway.routes import ApiRoute

CallOne = Callable[[Endpoint[Any, Any], Any], Awaitable[Model]]

SEPARATOR = "!"
"""Between the service that a list goes on with, and that service's own cursor."""


def may_ask(
    route: ApiRoute, caller: Caller | None, project: str | None
) -> tuple[Endpoint[Any, Any], ...]:
    """The operations behind the route that the caller may use."""
    return tuple(e for e in route.endpoints if allowed(caller, e.policy, project))


async def ask(call: CallOne, endpoints: Sequence[Endpoint[Any, Any]], request: Any) -> Model:
    """The answer of whichever service has it, or of all that have a part of it; `call` asks
    one of them."""
    if len(endpoints) == 1:
        return await call(endpoints[0], request)
    if isinstance(request, ListRequest):
        return await _page(call, endpoints, request)
    answers = await asyncio.gather(*(call(e, request) for e in endpoints), return_exceptions=True)
    for answer in answers:
        if not isinstance(answer, BaseException):
            return answer
    errors = [a for a in answers if isinstance(a, BaseException)]
    raise next((e for e in errors if not _absent(e)), errors[0])


def _absent(error: BaseException) -> bool:
    return isinstance(error, Refused) and error.code is NOT_FOUND


async def _page(
    call: CallOne, endpoints: Sequence[Endpoint[Any, Any]], request: ListRequest
) -> Model:
    ordered = sorted(endpoints, key=lambda e: e.service)
    service, _, cursor = (request.cursor or "").partition(SEPARATOR)
    services = [e.service for e in ordered]
    if request.cursor is not None and service not in services:
        raise Refused(INVALID, "cursor: not one that a list gave")
    first = services.index(service) if service else 0
    items: list[Any] = []
    missing: list[str] = []
    next_cursor: str | None = None
    for at, endpoint in enumerate(ordered[first:], first):
        if len(items) == request.limit:
            next_cursor = endpoint.service + SEPARATOR
            break
        room = {"limit": request.limit - len(items), "cursor": cursor if at == first else None}
        asked = request.model_copy(update={**room, "cursor": room["cursor"] or None})
        try:
            page: Any = await call(endpoint, asked)
        except Retry:
            missing.append(endpoint.service)
            continue
        items += page.items
        if page.cursor is not None:
            next_cursor = endpoint.service + SEPARATOR + page.cursor
            break
    response: Model = ordered[0].response(
        items=tuple(items), cursor=next_cursor, missing=tuple(missing)
    )
    return response
