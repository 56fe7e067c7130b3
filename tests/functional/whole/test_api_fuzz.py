"""Every operation over HTTP with data that fits its declaration, and data that does not.

Whatever is sent, the answer is what the OpenAPI document says, never a failure of ours, and every
refusal is a problem document that says what to do. The services behind the gateway are the real
ones, so that what the gateway lets through meets the owner's own checks.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from trivet.gateway.openapi import document
from trivet.gateway.routes import all_endpoints, routes

SHORT, LONG = 2, 150
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
PROJECT = "/v1/projects/default"
KNOWN: list[tuple[str, dict[str, Any]]] = [
    ("/v1/pools", {"members": [{"node": "n1", "file_gib": 10}]}),
    ("/v1/roles", {"permissions": ["compute.vm.get"]}),
    ("/v1/users", {}),
    ("/v1/projects", {}),
    (f"{PROJECT}/networks", {"subnets": ["10.9.0.0/24"]}),
    (f"{PROJECT}/security-groups", {"rules": []}),
    (f"{PROJECT}/volumes", {"size_gib": 1}),
    (f"{PROJECT}/ports", {"network": "known"}),
    (f"{PROJECT}/vms", {"disks": [{"size_gib": 1}], "nics": [{"network": "known"}]}),
]
TABLE = routes(all_endpoints())
SCHEMA = schemathesis.openapi.from_dict(document(TABLE))
OPERATIONS = {
    operation.label: operation
    for operation in (result.ok() for result in SCHEMA.get_all_operations())
    if operation.path != "/v1/events" and "426" not in operation.definition.raw["responses"]
}


def test_the_document_is_valid() -> None:
    validate(document(TABLE))


def test_the_document_is_complete() -> None:
    told = document(TABLE)
    offered = {e.op for e in all_endpoints() if e.http and e.policy.audience.value != "internal"}
    written = {
        operation["operationId"].removesuffix("-all")
        for path in told["paths"].values()
        for operation in path.values()
    }
    assert offered <= written
    for path, methods in told["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["x-trivet-policy"]["audience"], where
            public = operation["x-trivet-policy"]["audience"] == "public"
            assert public == (operation.get("security") == []), where
            in_path = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert in_path == {p.strip("{}") for p in path.split("/") for p in _named(p)}, where
            if not public:
                assert {"400", "401", "429", "503"} <= set(operation["responses"]), where
            if method == "post":
                names = {p["name"] for p in operation["parameters"]}
                assert "Idempotency-Key" in names, where
            if method in ("post", "patch"):
                assert operation["requestBody"]["content"], where


def _named(part: str) -> list[str]:
    return [part[part.index("{") : part.index("}") + 1]] if "{" in part else []


async def known(node: Any) -> None:
    """Resources that operations can be asked of, by the name `known`."""
    for path, spec in KNOWN:
        body = {"meta": {"name": "known"}, "spec": spec}
        wait = "" if path.endswith("ports") else "?wait=30"
        reply = await node.http.post(path + wait, json=body)
        assert reply.status_code == 201, (path, reply.text)


class Fuzz:
    """Asks a node whatever hypothesis makes up for an operation."""

    def __init__(self, node: Any, examples: int) -> None:
        self._headers = dict(node.http.headers)
        self._http = httpx.Client(base_url=f"http://{node.address}", headers=self._headers)
        self._address = f"http://{node.address}"
        self._examples = examples
        self.statuses: dict[int, int] = {}

    def operation(self, operation: Any) -> None:
        """Half of what is asked names what is there, so that it comes further."""
        names = {p["name"] for p in operation.definition.raw.get("parameters", ())}
        there = {k: v for k, v in {"project": "default", "name": "known"}.items() if k in names}
        modes = [GenerationMode.POSITIVE]
        if names or "requestBody" in operation.definition.raw:
            modes.append(GenerationMode.NEGATIVE)
        for mode in modes:
            for path in [there, None] if there else [None]:
                strategy = operation.as_strategy(generation_mode=mode, path_parameters=path)
                self._run(strategy)

    def _run(self, strategy: st.SearchStrategy[Any]) -> None:
        @settings(
            max_examples=self._examples,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def ask(case: Any) -> None:
            # Waits would only make it slow.
            if case.query and "wait" in case.query:
                case.query = {k: v for k, v in case.query.items() if k != "wait"}
            self._one(case)

        ask()

    def _one(self, case: Any) -> None:
        response = case.call(base_url=self._address, headers=self._headers)
        self.statuses[response.status_code] = self.statuses.get(response.status_code, 0) + 1
        case.validate_response(response, checks=CHECKS)
        if response.status_code >= 400:
            problem = response.json()
            assert response.headers["content-type"] == ["application/problem+json"], problem
            assert problem.get("hint") or problem["errors"], problem
            for error in problem.get("errors", ()):
                assert error["where"], problem
                assert error["message"], problem


@pytest.mark.parametrize("part", range(4))
async def test_nothing_that_is_sent_is_answered_with_a_failure(node: Any, part: int) -> None:
    await known(node)
    fuzz = Fuzz(node, SHORT)
    for label in sorted(OPERATIONS)[part::4]:
        await asyncio.to_thread(fuzz.operation, OPERATIONS[label])
    assert {200, 400} <= set(fuzz.statuses), fuzz.statuses


@pytest.mark.soak
@pytest.mark.parametrize("label", sorted(OPERATIONS))
async def test_nothing_that_is_sent_for_long(node: Any, label: str) -> None:
    await known(node)
    await asyncio.to_thread(Fuzz(node, LONG).operation, OPERATIONS[label])
