"""Finding an operation by its path: as the framework's router would, for every declared one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.gateway.front import PathTable
from trivet.gateway.routes import all_endpoints, routes

TABLE = routes(all_endpoints())
PATHS = PathTable((r.http.method, r.http.path, r.endpoint.op) for r in TABLE)
WORDS = ["v1", "projects", "vms", "web", "a:start", "web:stop", ":stop", "", "networks", "nodes"]


def by_pattern(method: str, path: str) -> list[str]:
    """What a router that tries each pattern finds."""
    found = []
    for route in TABLE:
        parts = re.split(r"\{\w+\}", route.http.path)
        pattern = "[^/:]+".join(map(re.escape, parts))
        if route.http.method == method and re.fullmatch(pattern, path):
            found.append(route.endpoint.op)
    return found


@pytest.mark.parametrize("route", TABLE, ids=lambda r: f"{r.http.method} {r.http.path}")
def test_every_operation_is_found_with_its_parameters(route: object) -> None:
    http = route.http  # type: ignore[attr-defined]
    names = re.findall(r"\{(\w+)\}", http.path)
    path = http.path.format(**{name: f"some-{name}" for name in names})
    found = PATHS.find(http.method, path)
    assert found is not None
    assert found[0] == route.endpoint.op  # type: ignore[attr-defined]
    assert found[1] == {name: f"some-{name}" for name in names}


@given(st.sampled_from(["GET", "POST", "DELETE", "PUT"]), st.lists(st.sampled_from(WORDS)))
def test_it_agrees_with_a_router_that_tries_each(method: str, words: list[str]) -> None:
    path = "/" + "/".join(words)
    found = PATHS.find(method, path)
    assert ([found[0]] if found else []) == by_pattern(method, path)[:1]
