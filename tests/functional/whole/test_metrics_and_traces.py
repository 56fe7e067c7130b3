"""Figures and traces of a whole node: what was done is counted, and one trace holds all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from trivet.runtime.telemetry import current_trace, span, trace_with

POOL = {"members": [{"node": "n1", "file_gib": 10}]}


async def a_vm(node: Any) -> Any:
    await node.settled("/v1/pools", meta={"name": "default"}, spec=POOL)
    net = {"subnets": ["10.9.0.0/24"]}
    await node.settled("/v1/projects/default/networks", meta={"name": "lan"}, spec=net)
    spec = {"disks": [{"size_gib": 1}], "nics": [{"network": "lan"}]}
    return await node.settled("/v1/projects/default/vms", meta={"name": "web"}, spec=spec)


async def figures(node: Any, path: str) -> dict[tuple[str, str], float]:
    """All samples at a path: name and labels (`a=b,c=d`), value."""
    reply = await node.http.get(path)
    assert reply.status_code == 200, reply.text
    assert reply.headers["Content-Type"].startswith("text/plain")
    return {
        (s.name, ",".join(f"{k}={v}" for k, v in sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(reply.text)
        for s in family.samples
    }


async def test_what_happened_and_what_is_are_told(node: Any) -> None:
    before = await figures(node, "/metrics")
    await a_vm(node)
    await node.http.get("/v1/projects/default/vms/absent")
    own = await figures(node, "/metrics")

    def grown(name: str, labels: str) -> float:
        return own[name, labels] - before.get((name, labels), 0.0)

    assert grown("trivet_http_requests_total", "op=vm.create,status=201") == 1
    assert grown("trivet_http_requests_total", "op=vm.get,status=404") == 1
    assert grown("trivet_http_request_seconds_count", "op=vm.create") == 1
    compute = await figures(node, "/metrics/n1/compute")
    assert compute["trivet_resources", "kind=vm,phase=ready"] == 1
    assert compute["trivet_vms", "node=n1,power=running"] == 1
    assert compute["trivet_node_used_vcpus", "node=n1"] == 1
    assert compute["trivet_leads", "service=compute"] == 1
    assert compute["trivet_bus_served_total", "code=ok,op=vm.create"] >= 1
    assert compute["trivet_reconciles_total", "loop=vm controller,outcome=done"] >= 1
    assert compute["trivet_reconcile_seconds_count", "loop=vm agent"] >= 1
    assert ("trivet_reconcile_queue", "loop=vm agent") in compute
    assert ("trivet_outbox_records", "service=compute") in compute
    storage = await figures(node, "/metrics/n1/storage")
    assert storage["trivet_replicas", "state=in_sync"] == 1
    assert storage["trivet_pool_size_bytes", "node=n1,pool=default"] > 0
    for service in ("network", "security"):
        assert (await figures(node, f"/metrics/n1/{service}"))["trivet_leads", f"service={service}"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/metrics/n1/nothing", 404),
        ("/metrics/n1/gateway", 404),
        ("/metrics/n.1/compute", 404),
        ("/metrics/n1", 404),
        ("/metrics/absent/compute", 503),
    ],
)
async def test_a_scrape_of_what_is_not_there(node: Any, path: str, status: int) -> None:
    assert (await node.http.get(path)).status_code == status


async def test_figures_are_for_who_may_read_them(node: Any) -> None:
    for path in ("/metrics", "/metrics/n1/compute"):
        stranger = await node.http.get(path, headers={"Authorization": "Bearer nobody"})
        assert stranger.status_code == 401
    role = {"permissions": ["compute.vm.*"]}
    await node.settled("/v1/roles", meta={"name": "few"}, spec=role)
    spec = {"roles": [{"role": "few", "project": "*"}]}
    await node.settled("/v1/users", meta={"name": "eve"}, spec=spec)
    made = await node.http.post("/v1/tokens", json={"meta": {"name": "t"}, "spec": {"user": "eve"}})
    assert made.status_code == 201, made.text
    bearer = {"Authorization": f"Bearer {made.json()['secret']}"}
    reply = await node.http.get("/metrics", headers=bearer)
    assert (reply.status_code, reply.json()["code"]) == (403, "auth.forbidden")


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace_with(provider)
    yield exporter
    trace_with(None)


async def test_one_trace_goes_from_the_api_call_to_the_driver(
    spans: InMemorySpanExporter, make_node: Any, tmp_path: Path
) -> None:
    async with make_node(tmp_path) as node:
        await a_vm(node)
        trace_id = next(
            s.context.trace_id for s in spans.get_finished_spans() if s.name == "http vm.create"
        )

        def of_trace() -> list[ReadableSpan]:
            return [s for s in spans.get_finished_spans() if s.context.trace_id == trace_id]

        wanted = {
            "http vm.create",
            "call compute vm.create",
            "serve compute vm.create",
            "call storage volume.create",
            "serve storage volume.create",
            "driver fake.define",
        }
        async with asyncio.timeout(60):
            while not wanted <= {s.name for s in of_trace()}:  # noqa: ASYNC110 - spans end by themselves
                await asyncio.sleep(0.05)
        by_id = {s.context.span_id: s for s in of_trace()}
        start = next(s for s in of_trace() if s.name == "driver fake.define")
        above = []
        while start.parent is not None and start.parent.span_id in by_id:
            start = by_id[start.parent.span_id]
            above.append(start)
        names = [s.name for s in above]
        assert names[-3:] == ["serve compute vm.create", "call compute vm.create", "http vm.create"]
        look = next(s for s in above if s.name.startswith("reconcile"))
        assert look.attributes is not None
        assert look.attributes["trivet.key"] == "vm.default.web"
        assert look.attributes["trivet.generation"] == 1
        assert [link.context.trace_id for link in look.links] == [trace_id]


async def test_without_tracing_nothing_is_made_or_stored(node: Any) -> None:
    await a_vm(node)
    assert current_trace() is None
    with span("nothing") as made:
        assert not made.get_span_context().is_valid
    record = node.harness.broker.bucket("compute").entry("vm.default.web")
    assert b'"trace":null' in record.value
