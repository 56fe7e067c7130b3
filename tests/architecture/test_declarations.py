"""Everything that is declared is also served, guarded, and documented."""

import importlib
import pkgutil
from pathlib import Path

import pytest

from trivet.contracts import hookspecs
from trivet.contracts.endpoint import SERVICES, declared
from trivet.contracts.resource import KINDS

TOP = Path(__file__).parents[2]
OWNERS = tuple(s for s in SERVICES if s != "gateway")


def modules_of(package_name: str) -> set[str]:
    package = importlib.import_module(package_name)
    return {info.name for info in pkgutil.iter_modules(package.__path__)}


@pytest.mark.parametrize("service", OWNERS)
def test_an_operation_has_a_handler_in_a_file_of_the_same_name(service):
    contracts = modules_of(f"trivet.contracts.{service}.endpoints")
    handlers = modules_of(f"trivet.{service}.endpoints")
    assert contracts - handlers == set(), "declared, and not served"
    for name in contracts & handlers:
        module = importlib.import_module(f"trivet.{service}.endpoints.{name}")
        assert callable(module.wire), name


@pytest.mark.parametrize("service", OWNERS)
def test_an_operation_names_who_may_call_it(service):
    for endpoint in declared(service):
        audience = endpoint.policy.audience
        assert endpoint.service == service
        if audience.value == "permitted":
            owner, noun, verb = endpoint.policy.permission.split(".")
            assert owner == service, endpoint
            assert noun, endpoint
            assert verb, endpoint
        if audience.value == "internal":
            assert endpoint.http is None, f"{endpoint} is for services, and the gateway offers it"


@pytest.mark.parametrize("service", OWNERS)
def test_what_the_gateway_offers_is_only_what_it_may(service):
    routes = [(e.http.method, e.http.path) for e in declared(service) if e.http]
    assert len(set(routes)) == len(routes)
    for endpoint in declared(service):
        if endpoint.http:
            assert endpoint.http.path.startswith("/v1/"), endpoint
            # A WebSocket begins as a GET, whatever is then done over it.
            reads = endpoint.http.method == "GET" and endpoint.http.stream != "websocket"
            assert not (endpoint.changes and reads), endpoint


def test_every_hook_is_documented():
    text = (TOP / "docs/extending.md").read_text()
    hooks = [name for name in vars(hookspecs) if name.startswith("trivet_")]
    assert hooks
    assert [hook for hook in hooks if f"`{hook}`" not in text] == []


def test_every_hook_has_somebody_behind_it():
    """A driver of ours, or (for what only third parties add) a test of such a plugin."""
    sources = "".join(p.read_text() for p in (TOP / "plugins/src").rglob("*.py"))
    tests = "".join(p.read_text() for p in (TOP / "tests").rglob("*.py") if p != Path(__file__))
    hooks = [name for name in vars(hookspecs) if name.startswith("trivet_")]
    assert [h for h in hooks if f"def {h}(" not in sources and h not in tests] == []


def test_every_event_is_documented():
    text = (TOP / "docs/events.md").read_text()
    for service in OWNERS:
        declared(service)  # kinds are known once their endpoints are imported
    types = [event.type for kind in KINDS.values() for event in kind.event_types]
    assert types
    assert [t for t in types if t not in text] == []
