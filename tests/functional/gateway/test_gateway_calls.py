"""Calls through the gateway: every operation the same way, and every failure a problem."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from trivet.contracts.access import Caller
from trivet.contracts.errors import CODES, Refused
from trivet.contracts.security.endpoints.token_verify import ENDPOINT as VERIFY
from trivet.contracts.service_status import status_endpoint
from trivet.contracts.storage.endpoints.volumes import CRUD as VOLUMES
from trivet.gateway.limits import Limits

VMS = "/v1/projects/red/vms"
BODY: dict[str, Any] = {"meta": {"name": "web"}, "spec": {"vcpus": 2}}


async def test_the_revision_that_is_shown_is_the_resources_and_no_labels(site: Any) -> None:
    named = {"name": "web", "labels": {"revision": "77", "note": '"revision":88'}}
    await site.ask("POST", VMS, json={**BODY, "meta": named})
    await site.ask("PATCH", f"{VMS}/web", json={"spec": {"vcpus": 3}})
    shown = await site.ask("GET", f"{VMS}/web")
    assert shown.json()["meta"]["labels"] == named["labels"]
    assert shown.headers["ETag"] == f'"{shown.json()["meta"]["revision"]}"'


async def test_a_resource_is_made_shown_listed_changed_and_deleted(site: Any) -> None:
    made = await site.ask("POST", VMS, json={**BODY, "kind": "Vm"})
    assert made.status_code == 201, made.text
    assert made.json()["kind"] == "Vm"
    assert made.json()["meta"]["project"] == "red"
    assert made.headers["ETag"] == '"1"'
    shown = await site.ask("GET", f"{VMS}/web")
    assert shown.json()["spec"]["vcpus"] == 2
    listed = await site.ask("GET", f"{VMS}?limit=5")
    assert [v["meta"]["name"] for v in listed.json()["items"]] == ["web"]
    everywhere = await site.ask("GET", "/v1/vms")
    assert len(everywhere.json()["items"]) == 1
    edited = await site.ask(
        "PATCH", f"{VMS}/web", json={"spec": {"vcpus": 3}}, headers={"If-Match": '"1"'}
    )
    assert edited.json()["spec"]["vcpus"] == 3
    gone = await site.ask("DELETE", f"{VMS}/web")
    assert gone.status_code == 200
    assert gone.json()["meta"]["deleting_at"]


async def test_another_revision_is_told_as_412(site: Any) -> None:
    await site.ask("POST", VMS, json=BODY)
    late = await site.ask(
        "PATCH", f"{VMS}/web", json={"spec": {"vcpus": 3}}, headers={"If-Match": '"77"'}
    )
    assert late.status_code == 412
    assert late.json()["code"] == "resource.revision_mismatch"


async def test_an_action_reaches_its_operation(site: Any) -> None:
    await site.ask("POST", VMS, json=BODY)
    stopped = await site.ask("POST", f"{VMS}/web:stop", json={"force": True})
    assert stopped.status_code == 200
    op, request, call = site.cloud.calls[-1]
    assert (op, request.project, request.name, request.force) == ("vm.stop", "red", "web", True)
    assert call.caller.user == "admin"
    assert call.request_id == stopped.headers["X-Request-Id"]


async def test_wait_answers_with_the_settled_resource(site: Any) -> None:
    made = await site.ask("POST", f"{VMS}?wait=30", json=BODY)
    assert made.status_code == 201
    assert made.json()["status"]["phase"] == "ready"
    again = await site.ask("POST", f"{VMS}/web:start?wait=5")
    assert again.json()["status"]["power"] == "running"


async def test_wait_answers_with_the_present_state_when_the_time_is_over(site: Any) -> None:
    site.cloud.settles = False
    made = await site.ask("POST", f"{VMS}?wait=0.3", json=BODY)
    assert made.status_code == 201
    assert made.json()["status"]["phase"] == "pending"


async def test_wait_on_a_delete_ends_when_it_is_gone(site: Any) -> None:
    await site.ask("POST", VMS, json=BODY)
    gone = await site.ask("DELETE", f"{VMS}/web?wait=30")
    assert gone.status_code == 200
    assert gone.json()["status"]["phase"] == "deleting"
    assert (await site.ask("GET", f"{VMS}/web")).status_code == 404


async def test_errors_are_problem_documents(site: Any) -> None:
    await site.ask("POST", VMS, json=BODY)
    taken = await site.ask("POST", VMS, json=BODY)
    assert taken.status_code == 409
    assert taken.headers["Content-Type"] == "application/problem+json"
    problem = taken.json()
    assert problem["type"] == "/problems/resource.name_taken"
    assert problem["request_id"] == taken.headers["X-Request-Id"]
    absent = await site.ask("GET", "/v1/projects/red/volumes/data")
    assert absent.status_code == 503
    assert absent.json()["code"] == "bus.unavailable"
    assert int(absent.headers["Retry-After"]) >= 1


async def test_a_code_of_another_service_keeps_its_status(site: Any) -> None:
    async def full(request: Any, call: Any) -> Any:
        raise Refused(CODES["volume.no_space"], "the pool has 3 GiB left")

    await site.cloud.serve(VOLUMES.create, full)
    body = {"meta": {"name": "data"}, "spec": {"size_gib": 9}}
    reply = await site.ask("POST", "/v1/projects/red/volumes", json=body)
    assert (reply.status_code, reply.json()["code"]) == (409, "volume.no_space")


async def test_what_fails_unexpectedly_tells_no_internals(site: Any) -> None:
    broken = await site.ask("GET", f"{VMS}/web/log")
    assert broken.status_code == 500
    assert broken.json()["code"] == "internal"
    assert "secret" not in broken.text
    assert broken.headers["X-Request-Id"] in broken.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/", 405, "request.method_not_allowed"),
        ("GET", "/page/app.py", 404, "request.no_route"),
        ("GET", "/page/..%2Fapp.py", 404, "request.no_route"),
        ("GET", "/v1/nonsense", 404, "request.no_route"),
        ("GET", f"{VMS}/", 404, "request.no_route"),
        ("GET", "/v1/%00%ff", 404, "request.no_route"),
        ("POST", f"{VMS}/web:explode", 404, "request.no_route"),
        ("PUT", VMS, 405, "request.method_not_allowed"),
        ("POST", f"{VMS}/web", 405, "request.method_not_allowed"),
        ("POST", "/v1/health", 405, "request.method_not_allowed"),
    ],
)
async def test_unknown_paths_and_methods(
    site: Any, method: str, path: str, status: int, code: str
) -> None:
    reply = await site.ask(method, path)
    assert (reply.status_code, reply.json()["code"]) == (status, code)
    assert status != 405 or reply.headers["Allow"]


async def test_internal_operations_have_no_path(site: Any) -> None:
    for path in (
        f"{VMS}/web:act",
        "/v1/projects/red/volumes/v:attach",
        "/v1/tokens:verify",
        "/v1/audit:append",
    ):
        assert (await site.ask("POST", path, json={})).status_code == 404


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer wrong", "Bearer " + "x" * 5000],
)
async def test_strangers_are_refused_and_recorded(site: Any, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    reply = await site.ask("GET", f"{VMS}/web", who=None, headers=headers)
    assert reply.status_code == 401
    assert reply.json()["code"] == "auth.unauthenticated"
    assert reply.headers["WWW-Authenticate"].startswith("Bearer")
    await site.gateway.stop()
    assert [(e.user, e.outcome) for e in site.cloud.audit] == [
        ("anonymous", "auth.unauthenticated")
    ]


@pytest.mark.parametrize(
    ("who", "method", "path", "status"),
    [
        ("alice", "GET", VMS, 200),
        ("alice", "GET", "/v1/projects/blue/vms", 403),
        ("alice", "GET", "/v1/vms", 403),
        ("alice", "GET", "/v1/nodes", 403),
        ("alice", "GET", "/v1/projects/red/volumes", 403),
        ("alice", "GET", "/v1/audit", 403),
        ("nobody", "GET", VMS, 403),
        ("nobody", "POST", VMS, 403),
    ],
)
async def test_policies_hold_in_the_project_of_the_path(
    site: Any, who: str, method: str, path: str, status: int
) -> None:
    reply = await site.ask(method, path, who=who)
    assert reply.status_code == status, reply.text
    assert status != 403 or reply.json()["code"] == "auth.forbidden"


async def test_a_caller_is_verified_once_and_forgotten_when_its_token_changes(
    site: Any, until: Any
) -> None:
    for _ in range(3):
        assert (await site.ask("GET", VMS, who="alice")).status_code == 200
    assert site.cloud.verified == 1
    del site.cloud.callers["alice"]
    await site.cloud.emit("edited", service="security", noun="user", project=None)

    async def refused() -> bool:
        return bool((await site.ask("GET", VMS, who="alice")).status_code == 401)

    await until(refused)


async def test_events_of_other_nouns_do_not_forget_callers(site: Any) -> None:
    await site.ask("GET", VMS)
    await site.cloud.emit("edited", service="security", noun="security-group")
    for _ in range(20):
        await asyncio.sleep(0)
    await site.ask("GET", VMS)
    assert site.cloud.verified == 1


async def test_an_answer_under_way_while_a_token_changes_is_not_kept(site: Any) -> None:
    identities = site.gateway._identities
    verify = site.cloud.verify

    async def slow(request: Any, call: Any) -> Any:
        answer = await verify(request, call)
        identities.forget()
        return answer

    site.cloud.callers["bob"] = Caller(user="bob")
    listener = next(
        item for item in site.cloud.bus.broker.listeners if item.pattern.endswith("verify.v1")
    )
    site.cloud.bus.broker.listeners.remove(listener)
    await site.cloud.serve(VERIFY, slow)
    await site.ask("GET", VMS, who="bob")
    await site.ask("GET", VMS, who="bob")
    assert site.cloud.verified == 2


async def test_changes_are_recorded_and_reads_are_not(site: Any) -> None:
    await site.ask("POST", VMS, json=BODY)
    await site.ask("GET", f"{VMS}/web")
    await site.ask("POST", VMS, json=BODY)
    await site.ask("DELETE", f"{VMS}/web", headers={"X-Request-Id": "mine"})
    await site.gateway.stop()
    told = [(e.user, e.op, e.project, e.target, e.outcome) for e in site.cloud.audit]
    assert told == [
        ("admin", "vm.create", "red", "web", "ok"),
        ("admin", "vm.create", "red", "web", "resource.name_taken"),
        ("admin", "vm.delete", "red", "web", "ok"),
    ]
    assert len({e.request_id for e in site.cloud.audit} - {"mine"}) == 3


async def test_audit_entries_wait_until_they_are_appended(make_site: Any, until: Any) -> None:
    async with make_site(Limits(audit_retry_s=0.01)) as site:
        site.cloud.audit_fails = True
        for n in range(5):
            body = {"meta": {"name": f"web-{n}"}, "spec": {}}
            assert (await site.ask("POST", VMS, json=body)).status_code == 201
        assert not site.cloud.audit
        site.cloud.audit_fails = False
        await until(lambda: len(site.cloud.audit) == 5)
        assert [e.target for e in site.cloud.audit] == [f"web-{n}" for n in range(5)]


async def test_what_the_audit_queue_cannot_take_is_logged(make_site: Any, caplog: Any) -> None:
    async with make_site(Limits(audit_queue=1, audit_retry_s=60, audit_flush_s=0.1)) as site:
        site.cloud.audit_fails = True
        for n in range(3):
            body = {"meta": {"name": f"web-{n}"}, "spec": {}}
            assert (await site.ask("POST", VMS, json=body)).status_code == 201
    for n in range(3):
        assert f'"target":"web-{n}"' in caplog.text


async def test_over_the_bound_of_requests_callers_are_told_to_come_again(
    make_site: Any, until: Any
) -> None:
    async with make_site(Limits(concurrent_requests=1)) as site:
        await site.ask("POST", VMS, json=BODY)
        site.cloud.settles = False
        slow = asyncio.create_task(site.ask("GET", f"{VMS}/web?wait=1"))
        await until(lambda: site.cloud.calls[-1][0] == "vm.get")
        refused = await site.ask("GET", VMS)
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "1"
        assert (await slow).status_code == 200
        assert (await site.ask("GET", VMS)).status_code == 200


async def test_health_tells_which_services_answer(site: Any) -> None:
    reply = await site.ask("GET", "/v1/health", who=None)
    assert reply.status_code == 503
    services = reply.json()["services"]
    assert set(services) == {"compute", "storage", "network", "security"}
    assert not services["storage"]["reachable"]
    assert services["compute"]["reachable"]
    assert services["compute"]["leader"] == "n1"


@pytest.mark.parametrize(
    ("trouble", "word"),
    [({"leader": None}, "leads"), ({"unsent_s": 100.0}, "wait to be told"), ({}, "")],
    ids=["nobody leads", "events are late", "well"],
)
async def test_health_tells_which_services_do_their_work(
    site: Any, trouble: dict[str, Any], word: str
) -> None:
    well = site.cloud.health["compute"]
    await site.cloud.serve(status_endpoint("storage"), site.cloud.status("storage"))
    site.cloud.health["storage"] = well
    site.cloud.health["compute"] = well.model_copy(update=trouble)
    reply = await site.ask("GET", "/v1/health", who=None)
    assert reply.status_code == (503 if trouble else 200)
    assert reply.json()["status"] == ("degraded" if trouble else "ok")
    told = reply.json()["services"]["compute"]
    assert told["reachable"]
    assert word in told["reason"]
    assert bool(told["reason"]) == bool(trouble)


async def test_version_and_document_are_public(site: Any) -> None:
    assert (await site.ask("GET", "/v1/version", who=None)).json()["api"] == "v1"
    document = (await site.ask("GET", "/v1/openapi.json", who=None)).json()
    assert document["openapi"].startswith("3.1")


async def test_a_bus_that_is_cut_is_unavailable_not_broken(site: Any) -> None:
    await site.bus.drop()
    reply = await site.ask("GET", VMS)
    assert reply.status_code == 503
    await site.bus.restore()
    assert (await site.ask("GET", VMS)).status_code == 200


@pytest.mark.parametrize("gone", [False, True])
async def test_nothing_is_changed_for_a_caller_who_has_gone(site: Any, gone: bool) -> None:
    said = [{"type": "http.request", "body": json.dumps(BODY).encode(), "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if said:
            return said.pop()
        if not gone:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", b"Bearer admin"), (b"content-type", b"application/json")]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": VMS}
    scope |= {"raw_path": VMS.encode(), "query_string": b"", "headers": headers, "scheme": "http"}
    await site.gateway.app(scope, receive, send)
    assert sent[0]["status"] == (503 if gone else 201)
    assert [op for op, *_ in site.cloud.calls if op == "vm.create"] == (
        [] if gone else ["vm.create"]
    )
