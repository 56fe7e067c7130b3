"""A repeated POST gets its first answer: over gateways, restarts, and first tries cut off."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from trivet.contracts.access import CLUSTER, Caller, Grant
from trivet.contracts.endpoint import declared
from trivet.contracts.errors import UNAVAILABLE, Retry
from trivet.contracts.security.endpoints.audit_append import ENDPOINT as APPEND
from trivet.contracts.security.endpoints.audit_append import AppendResponse
from trivet.contracts.security.endpoints.token_verify import ENDPOINT as VERIFY
from trivet.contracts.security.endpoints.token_verify import VerifyResponse
from trivet.contracts.storage.endpoints.volumes import CRUD as VOLUMES
from trivet.contracts.storage.volume import VOLUME
from trivet.gateway import idempotency
from trivet.gateway.app import Gateway
from trivet.gateway.limits import Limits
from trivet.runtime.clock import SystemClock
from trivet.runtime.crud import Hooks, admit_anything, serve_crud
from trivet.runtime.service import Service
from trivet.testing.harness import Harness
from trivet.testing.memory_bus import MemoryBus
from trivet.testing.memory_store import Fault, MemoryStore

VMS = "/v1/projects/red/vms"
BODY: dict[str, Any] = {"meta": {"name": "web"}, "spec": {"vcpus": 2}}
KEY = {"Idempotency-Key": "a-key"}


async def test_a_repeat_gets_the_first_answer_and_nothing_is_done(site: Any) -> None:
    first = await site.ask("POST", VMS, json=BODY, headers=KEY)
    again = await site.ask("POST", VMS, json=BODY, headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["ETag"] == first.headers["ETag"]
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (
        None,
        "true",
    )
    assert [op for op, _, _ in site.cloud.calls] == ["vm.create"]
    await site.gateway.stop()
    assert [e.op for e in site.cloud.audit] == ["vm.create"], "a repeat changes nothing"


async def test_the_order_of_fields_and_the_wait_do_not_matter(site: Any) -> None:
    await site.ask("POST", VMS, json=BODY, headers=KEY)
    turned = {"spec": {"vcpus": 2}, "meta": {"name": "web"}}
    again = await site.ask("POST", f"{VMS}?wait=5", json=turned, headers=KEY)
    assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (VMS, {**BODY, "spec": {"vcpus": 3}}),
        (VMS, {**BODY, "meta": {"name": "other"}}),
        ("/v1/projects/blue/vms", BODY),
        (f"{VMS}/web:start", {}),
    ],
)
async def test_another_request_under_the_key_is_refused(
    site: Any, path: str, body: dict[str, Any]
) -> None:
    await site.ask("POST", VMS, json=BODY, headers=KEY)
    reply = await site.ask("POST", path, json=body, headers=KEY)
    assert (reply.status_code, reply.json()["code"]) == (422, "idempotency.key_reused")


async def test_a_refusal_is_repeated_too(site: Any) -> None:
    await site.ask("POST", VMS, json=BODY)
    first = await site.ask("POST", VMS, json=BODY, headers=KEY)
    del site.cloud.vms["red", "web"]
    again = await site.ask("POST", VMS, json=BODY, headers=KEY)
    assert (first.status_code, again.status_code) == (409, 409)
    assert again.json()["detail"] == first.json()["detail"]
    assert again.headers["Idempotency-Replayed"] == "true"


async def test_keys_belong_to_their_token(site: Any) -> None:
    await site.ask("POST", VMS, json=BODY, headers=KEY)
    other = await site.ask("POST", VMS, json=BODY, headers=KEY, who="alice")
    assert other.json()["code"] == "resource.name_taken"


async def test_who_may_not_is_refused_before_the_key_is_looked_at(site: Any) -> None:
    await site.ask("POST", VMS, json=BODY, headers=KEY, who="alice")
    del site.cloud.callers["alice"]
    site.gateway._identities.forget()
    again = await site.ask("POST", VMS, json=BODY, headers=KEY, who="alice")
    assert again.status_code == 401


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "a\tb", "é"])
async def test_a_bad_key_is_the_callers_fault(site: Any, key: str) -> None:
    headers = {"Authorization": b"Bearer admin", "Idempotency-Key": key.encode()}
    reply = await site.http.post(VMS, json=BODY, headers=headers)
    assert (reply.status_code, reply.json()["code"]) == (400, "request.malformed")


async def test_reads_and_edits_take_no_notice_of_a_key(site: Any) -> None:
    await site.ask("POST", VMS, json=BODY)
    for vcpus in (3, 4):
        edited = await site.ask("PATCH", f"{VMS}/web", json={"spec": {"vcpus": vcpus}}, headers=KEY)
        assert edited.json()["spec"]["vcpus"] == vcpus
    assert (await site.ask("GET", VMS, headers=KEY)).status_code == 200


async def test_what_is_kept_tells_nothing_without_the_token(site: Any) -> None:
    await site.ask("POST", VMS, json=BODY, headers=KEY)
    (entry,) = site.bus.broker.bucket("gateway").keys.values()
    kept = str(entry)
    for word in ("web", "vcpus", "admin", "a-key"):
        assert word not in kept


@asynccontextmanager
async def slow_create(site: Any) -> Any:
    """Creates wait until the block sets the event."""
    go = asyncio.Event()
    create = site.cloud.create

    async def slow(request: Any, call: Any) -> Any:
        await go.wait()
        return await create(request, call)

    broker = site.cloud.bus.broker
    broker.listeners[:] = [x for x in broker.listeners if not x.pattern.endswith("vm.create.v1")]
    (endpoint,) = [e for e in declared("compute") if e.op == "vm.create"]
    await site.cloud.serve(endpoint, slow)
    yield go
    go.set()


async def test_of_two_at_once_one_acts_and_the_other_waits_for_its_answer(
    site: Any, until: Any
) -> None:
    async with slow_create(site) as go:
        asks = [
            asyncio.create_task(site.ask("POST", VMS, json=BODY, headers=KEY)) for _ in range(5)
        ]
        await until(lambda: site.cloud.calls)
        go.set()
        replies = await asyncio.gather(*asks)
    assert {(r.status_code, r.content) for r in replies} == {(201, replies[0].content)}
    assert len(site.cloud.calls) == 1


async def test_who_waits_too_long_is_told(make_site: Any, until: Any) -> None:
    async with make_site(Limits(key_wait_s=0.05)) as site, slow_create(site) as go:
        first = asyncio.create_task(site.ask("POST", VMS, json=BODY, headers=KEY))
        await until(lambda: site.cloud.calls)
        reply = await site.ask("POST", VMS, json=BODY, headers=KEY)
        assert (reply.status_code, reply.json()["code"]) == (409, "idempotency.in_progress")
        assert reply.headers["Retry-After"] == "1"
        go.set()
        assert (await first).status_code == 201


async def test_a_store_that_is_not_there_refuses_before_anything_is_done(site: Any) -> None:
    site.gateway._dispatcher._answers._store.fail(Fault.REFUSED_CONNECTION)
    reply = await site.ask("POST", VMS, json=BODY, headers=KEY)
    assert (reply.status_code, reply.json()["code"]) == (503, UNAVAILABLE.value)
    assert not site.cloud.calls


async def test_an_answer_that_could_not_be_kept_is_given_all_the_same(site: Any) -> None:
    store = site.gateway._dispatcher._answers._store
    await site.ask("POST", VMS, json={**BODY, "meta": {"name": "warm"}})
    writes = iter((False, True))
    store.fail(Fault.LOST_BEFORE, when=lambda key: next(writes, False))
    assert (await site.ask("POST", VMS, json=BODY, headers=KEY)).status_code == 201


# --- with a service that stores, so that what happened is seen ---------------------------------


async def bootstrap(service: Service) -> None:
    """Volumes, as they are stored; and answers to who asks for callers."""
    service.collection(VOLUME)
    serve_crud(service, VOLUMES, Hooks(admit_anything))


class Cluster:
    """A storage service, and gateways in front of it that can die."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.bus = MemoryBus(harness.broker, "gateway")
        self.limits = Limits(key_wait_s=0.05)

    async def verify(self, request: Any, call: Any) -> VerifyResponse:
        grants = (Grant(project=CLUSTER, permissions=("*",)),)
        return VerifyResponse(caller=Caller(user="admin", grants=grants))

    async def append(self, request: Any, call: Any) -> AppendResponse:
        return AppendResponse(last_seq=0)

    def gateway(self, holder: str = "n1:8443") -> Gateway:
        store = MemoryStore(self.bus, "gateway")
        return Gateway(self.bus, store, SystemClock(), self.limits, holder)

    async def post(self, gateway: Gateway, name: str = "data") -> httpx.Response:
        transport = httpx.ASGITransport(gateway.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            return await http.post(
                "/v1/projects/red/volumes",
                json={"meta": {"name": name}, "spec": {"size_gib": 1}},
                headers={"Authorization": "Bearer t", **KEY},
            )

    async def volumes(self) -> int:
        keys = self.harness.broker.bucket("storage").keys
        return len([k for k in keys if k.startswith("volume.")])


@pytest.fixture
async def cluster(tmp_path: Path) -> Any:
    async with Harness(tmp_path) as harness:
        made = Cluster(harness)
        await harness.start("storage", bootstrap)
        await harness.fake(VERIFY, made.verify)
        await harness.fake(APPEND, made.append)
        yield made


async def test_another_gateway_gives_the_first_answer(cluster: Cluster) -> None:
    first = await cluster.post(cluster.gateway("n1:8443"))
    again = await cluster.post(cluster.gateway("n2:8443"))
    assert (first.status_code, again.content) == (201, first.content)


async def cut_off(cluster: Cluster, gateway: Gateway, when: str, until: Any) -> None:
    """A first request whose gateway dies in the middle."""
    call = gateway._dispatcher._client.call

    async def dies(endpoint: Any, request: Any, **more: Any) -> Any:
        if endpoint.op != "volume.create":
            return await call(endpoint, request, **more)
        if when == "after":
            await call(endpoint, request, **more)
        return await asyncio.sleep(3600)

    gateway._dispatcher._client.call = dies  # type: ignore[method-assign]

    async def never(*args: Any) -> None:
        return None

    gateway._dispatcher._answers._keep = never  # type: ignore[method-assign]
    asking = asyncio.create_task(cluster.post(gateway))
    store = MemoryStore(cluster.bus, "storage")

    async def cut() -> bool:
        there = await store.get("volume.red.data") is not None
        return bool(cluster.harness.broker.bucket("gateway").keys) and there is (when == "after")

    await until(cut)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_gateway_that_died_in_the_middle_is_taken_over_after_its_restart(
    cluster: Cluster, when: str, until: Any
) -> None:
    await cut_off(cluster, cluster.gateway(), when, until)
    again = await cluster.post(cluster.gateway())
    assert again.status_code == 201, again.text
    assert await cluster.volumes() == 1
    third = await cluster.post(cluster.gateway())
    assert third.content == again.content


async def test_another_gateway_takes_over_once_the_lease_is_over(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, until: Any
) -> None:
    await cut_off(cluster, cluster.gateway("n1:8443"), "after", until)
    other = cluster.gateway("n2:8443")
    reply = await cluster.post(other)
    assert reply.json()["code"] == "idempotency.in_progress"
    now = other._dispatcher._answers._clock.monotonic() + 1000
    monkeypatch.setattr(other._dispatcher._answers._clock, "monotonic", lambda: now)
    assert (await cluster.post(other)).status_code == 201
    assert await cluster.volumes() == 1


@pytest.mark.parametrize("lost", ["request", "reply"])
async def test_after_a_timeout_the_repeat_finds_what_was_made(cluster: Cluster, lost: str) -> None:
    gateway = cluster.gateway()
    call = gateway._dispatcher._client.call

    async def loses(endpoint: Any, request: Any, **more: Any) -> Any:
        if endpoint.op == "volume.create":
            if lost == "reply":
                await call(endpoint, request, **more)
            raise Retry(UNAVAILABLE, "it may have happened")
        return await call(endpoint, request, **more)

    gateway._dispatcher._client.call = loses  # type: ignore[method-assign]
    assert (await cluster.post(gateway)).status_code == 503
    gateway._dispatcher._client.call = call  # type: ignore[method-assign]
    assert (await cluster.post(gateway)).status_code == 201
    assert await cluster.volumes() == 1


async def test_a_name_that_somebody_else_took_is_refused_under_a_key_too(cluster: Cluster) -> None:
    gateway = cluster.gateway()
    await cluster.post(gateway)
    other = {"Idempotency-Key": "another"}
    transport = httpx.ASGITransport(gateway.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        reply = await http.post(
            "/v1/projects/red/volumes",
            json={"meta": {"name": "data"}, "spec": {"size_gib": 1}},
            headers={"Authorization": "Bearer t", **other},
        )
    assert reply.json()["code"] == "resource.name_taken"


def test_the_digest_tells_requests_apart_and_needs_the_token() -> None:
    one = idempotency.asked("t", "k", {"a": 1, "b": 2})
    assert one == idempotency.asked("t", "k", {"b": 2, "a": 1})
    assert one.digest != idempotency.asked("t", "k", {"a": 1, "b": 3}).digest
    other = idempotency.asked("u", "k", {"a": 1, "b": 2})
    assert other.place != one.place
    assert other.digest != one.digest
