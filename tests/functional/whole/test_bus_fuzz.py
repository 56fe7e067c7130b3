"""What services ask each other, made up: all that fits an operation's request, known names or not.

Junk is refused before it gets far (`test_bad_messages`). Here each operation of the bus, those that
the gateway does not offer too, gets requests that its declaration allows and ones that it does not,
from a service. Whatever they ask for, the answer fits the declaration, or is an error with a code
that is not our own failure; and the node goes on.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic.json_schema import models_json_schema
from schemathesis import GenerationMode

from trivet.contracts.access import service_caller
from trivet.contracts.endpoint import SERVICES, Endpoint, declared
from trivet.contracts.errors import CODES, INTERNAL, ErrorBody
from trivet.runtime.call import CALLER_HEADER
from trivet.testing.memory_bus import MemoryBus

SHORT, LONG = 3, 60
ENDPOINTS: dict[str, Endpoint[Any, Any]] = {
    f"{name}.{e.op}": e for name in SERVICES for e in declared(name)
}
KNOWN: list[tuple[str, dict[str, Any]]] = [
    ("networks", {"subnets": ["10.9.0.0/24"]}),
    ("volumes", {"size_gib": 1}),
    ("vms", {"disks": [{"size_gib": 1}], "nics": [{"network": "known"}]}),
]
PLACES = {"project": "default", "name": "known", "node": "n1", "volume": "known"}
"""What a field of that name holds in every other request, so that it comes further."""


def _operations() -> dict[str, Any]:
    """The operations of the bus as schemathesis takes them: each a path of one document."""
    asked = {op: e.request for op, e in ENDPOINTS.items()}
    refs, schema = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(asked.values())],
        ref_template="#/components/schemas/{model}",
    )
    paths = {
        f"/{op}": {
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": refs[model, "validation"]}},
                },
                "responses": {"200": {"description": "an answer"}},
            }
        }
        for op, model in asked.items()
    }
    document = {
        "openapi": "3.1.0",
        "info": {"title": "bus", "version": "1"},
        "paths": paths,
        "components": {"schemas": schema.get("$defs", {})},
    }
    found = schemathesis.openapi.from_dict(document).get_all_operations()
    return {operation.path[1:]: operation for operation in (result.ok() for result in found)}


OPERATIONS = _operations()


class Stranger:
    """Asks the services of a node whatever hypothesis makes up."""

    def __init__(self, node: Any, examples: int) -> None:
        self._bus = MemoryBus(node.harness.broker, "stranger")
        self._listened = {one.pattern for one in node.harness.broker.listeners}
        self._loop = asyncio.get_running_loop()
        self._examples = examples
        self.codes: dict[str, int] = {}

    def asks(self, op: str) -> None:
        """An operation, whatever fits it and whatever does not."""
        endpoint = ENDPOINTS[op]
        subject = endpoint.subject("n1") if endpoint.per_node else endpoint.subject()
        if subject not in self._listened:
            return
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            self._run(endpoint, subject, OPERATIONS[op].as_strategy(generation_mode=mode))

    def _run(self, endpoint: Any, subject: str, cases: st.SearchStrategy[Any]) -> None:
        @settings(
            max_examples=self._examples,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(cases, st.booleans())
        def ask(case: Any, known: bool) -> None:
            body = case.body
            if known and isinstance(body, dict):
                body = {**body, **{k: v for k, v in PLACES.items() if k in body}}
            sent = self._send(endpoint, subject, body)
            asyncio.run_coroutine_threadsafe(sent, self._loop).result(90)

        ask()

    async def _send(self, endpoint: Any, subject: str, body: Any) -> None:
        headers = {CALLER_HEADER: service_caller("compute").model_dump_json()}
        try:
            data = json.dumps(body).encode()
        except TypeError:
            return  # what JSON has no way to say
        reply = await self._bus.request(subject, data, timeout_s=20, headers=headers)
        if not reply.startswith(b"!"):
            endpoint.response.model_validate_json(reply)
            code = "ok"
        else:
            code = ErrorBody.model_validate_json(reply[1:]).code
            assert code in CODES
            assert code != INTERNAL.value, (subject, data, reply)
        self.codes[code] = self.codes.get(code, 0) + 1


async def _known(node: Any) -> None:
    pool = {"members": [{"node": "n1", "file_gib": 10}]}
    await node.settled("/v1/pools", meta={"name": "default"}, spec=pool)
    for plural, spec in KNOWN:
        await node.settled(f"/v1/projects/default/{plural}", meta={"name": "known"}, spec=spec)


async def _goes_on(node: Any) -> None:
    for (name, _), running in node.harness._running.items():
        assert not running.task.done(), name
    spec = {"subnets": ["10.77.0.0/24"]}
    await node.settled("/v1/projects/default/networks", meta={"name": "after"}, spec=spec)


@pytest.mark.parametrize("part", range(2))
async def test_what_services_may_ask_is_answered(node: Any, part: int) -> None:
    await _known(node)
    stranger = Stranger(node, SHORT)
    for op in sorted(OPERATIONS)[part::2]:
        await asyncio.to_thread(stranger.asks, op)
    assert {"ok", "request.malformed"} <= set(stranger.codes), stranger.codes
    await _goes_on(node)


@pytest.mark.soak
@pytest.mark.parametrize("op", sorted(OPERATIONS))
async def test_what_services_may_ask_for_long(node: Any, op: str) -> None:
    await _known(node)
    await asyncio.to_thread(Stranger(node, LONG).asks, op)
    await _goes_on(node)
