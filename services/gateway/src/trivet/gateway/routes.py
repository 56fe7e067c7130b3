"""Which operation is at which path: from the endpoint declarations alone, pure.

Internal operations, and those without an HTTP face, have no route at all. A kind that lives in
projects is also listed over all of them, at the path without the project; that needs the right
in the cluster. What other operation goes with one (the `get` that a wait repeats) is found here
too. A kind that several services share has one route an operation, behind which are all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trivet.contracts.access import Audience
from trivet.contracts.endpoint import SERVICES, Endpoint, Http, ListRequest, declared
from trivet.contracts.resource import Scope


@dataclass(frozen=True)
class ApiRoute:
    """A method and a path, and the operation behind them; `get` is the operation that shows
    the resource that this one answers, where there is one; `others` are the same operation of
    other services, for a kind that they share."""

    http: Http
    endpoint: Endpoint[Any, Any]
    get: Endpoint[Any, Any] | None = None
    others: tuple[Endpoint[Any, Any], ...] = ()

    @property
    def endpoints(self) -> tuple[Endpoint[Any, Any], ...]:
        """All operations behind the route."""
        return (self.endpoint, *self.others)

    @property
    def waits(self) -> bool:
        """Whether `?wait=` makes sense here."""
        return self.endpoint.settles and self.get is not None

    def __repr__(self) -> str:
        return f"<ApiRoute {self.http.method} {self.http.path} {self.endpoint.op}>"


def all_endpoints() -> tuple[Endpoint[Any, Any], ...]:
    """Every operation that any service declares."""
    return tuple(endpoint for service in SERVICES for endpoint in declared(service))


def routes(endpoints: Iterable[Endpoint[Any, Any]]) -> tuple[ApiRoute, ...]:
    """The routes of all operations that are offered over HTTP, in order of path."""
    everything = tuple(e for e in endpoints if e.policy.audience is not Audience.INTERNAL)
    offered, others = _one_of_each(everything)
    gets = {e.kind.name: e for e in offered if e.kind and e.verb == "get"}
    found: list[ApiRoute] = []
    for endpoint in offered:
        if endpoint.http is None:
            continue
        shared = others.get(endpoint.op, ())
        get = gets.get(endpoint.kind.name) if endpoint.kind and not shared else None
        found.append(ApiRoute(endpoint.http, endpoint, get, shared))
        if _lists_projects(endpoint):
            assert endpoint.kind is not None
            over_all = Http("GET", f"/v1/{endpoint.kind.plural}")
            found.append(ApiRoute(over_all, endpoint))
    places = [(r.http.method, r.http.path) for r in found]
    if len(set(places)) != len(places):
        raise ValueError(f"two operations at one path: {sorted(places)}")
    return tuple(sorted(found, key=lambda r: (r.http.path, r.http.method)))


def _one_of_each(
    endpoints: tuple[Endpoint[Any, Any], ...],
) -> tuple[tuple[Endpoint[Any, Any], ...], dict[str, tuple[Endpoint[Any, Any], ...]]]:
    """The operations, of shared kinds one service's only; and the other services', by op."""
    firsts: list[Endpoint[Any, Any]] = []
    others: dict[str, tuple[Endpoint[Any, Any], ...]] = {}
    for endpoint in endpoints:
        if endpoint.kind is None or not endpoint.kind.shared:
            firsts.append(endpoint)
        elif endpoint.op in others:
            others[endpoint.op] += (endpoint,)
        else:
            firsts.append(endpoint)
            others[endpoint.op] = ()
    return tuple(firsts), others


def _lists_projects(endpoint: Endpoint[Any, Any]) -> bool:
    in_projects = endpoint.kind is not None and endpoint.kind.scope is Scope.PROJECT
    return in_projects and issubclass(endpoint.request, ListRequest)
