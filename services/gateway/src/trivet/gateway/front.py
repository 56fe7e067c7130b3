"""The front of the gateway: finds the operation of a request by its path, whatever their number.

The framework's router tries one pattern after the other, and its layers around each request
cost as much as ours. Requests of declared operations therefore go straight to their handler, by
a tree of path segments; everything else (the gateway's own pages, WebSockets, what is nowhere)
goes on to the framework, which has all routes as well.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

ValueT = TypeVar("ValueT")
Handler = Callable[[Request], Awaitable[Response]]


@dataclass
class _Place(Generic[ValueT]):
    """A place in the tree: what follows it literally, or as a parameter; and by method what is
    there, with the names of the parameters on the way."""

    literal: dict[str, _Place[ValueT]] = field(default_factory=dict)
    parameter: _Place[ValueT] | None = None
    here: dict[str, tuple[tuple[str, ...], ValueT]] = field(default_factory=dict)


class PathTable(Generic[ValueT]):
    """Values by method and path; `{name}` in a path stands for one segment without ':'."""

    def __init__(self, entries: Iterable[tuple[str, str, ValueT]]) -> None:
        self._root: _Place[ValueT] = _Place()
        for method, path, value in entries:
            self._add(method, path, value)

    def _add(self, method: str, path: str, value: ValueT) -> None:
        place, names = self._root, list[str]()
        for part in _parts(path):
            if part.startswith("{"):
                names.append(part[1:-1])
                place.parameter = place.parameter or _Place()
                place = place.parameter
            else:
                place = place.literal.setdefault(part, _Place())
        place.here[method] = (tuple(names), value)

    def find(self, method: str, path: str) -> tuple[ValueT, Mapping[str, str]] | None:
        """What is at a method and a path, with the path's parameters; None: nothing."""
        place, given = self._root, list[str]()
        for part in _parts(path):
            following = place.literal.get(part)
            if following is None:
                if place.parameter is None or not part or part.startswith(":"):
                    return None
                given.append(part)
                following = place.parameter
            place = following
        if method not in place.here:
            return None
        names, value = place.here[method]
        return value, dict(zip(names, given, strict=True))


def _parts(path: str) -> list[str]:
    """`/v1/vms/{name}:start` as `["", "v1", "vms", "{name}", ":start"]`."""
    *folders, last = path.split("/")
    name, colon, action = last.partition(":")
    return [*folders, name, f":{action}"] if colon else [*folders, last]


class Front:
    """The application: declared operations by their table, the rest by `rest`."""

    def __init__(self, table: PathTable[Handler], rest: ASGIApp) -> None:
        self._table = table
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or one WebSocket."""
        found = None
        if scope["type"] == "http":
            found = self._table.find(scope["method"], scope["path"])
        if found is None:
            await self._rest(scope, receive, send)
            return
        handle, scope["path_params"] = found
        response = await handle(Request(scope, receive, send))
        await response(scope, receive, send)
