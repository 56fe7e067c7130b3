"""Which operation is where, and what a request amounts to: tables over all declarations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivet.contracts.access import Audience, Caller, Grant
from trivet.contracts.compute.endpoints.vm_stop import ENDPOINT as STOP
from trivet.contracts.compute.endpoints.vms import CRUD as VMS
from trivet.contracts.errors import CODES, MALFORMED, NOT_FOUND, TIMEOUT, Refused, Retry
from trivet.contracts.event import CloudEvent
from trivet.gateway.filters import bus_subject, first_seq, visible
from trivet.gateway.openapi import document
from trivet.gateway.problems import as_trivet_error, headers_of, problem, problem_type
from trivet.gateway.requests import assemble, parse_body, parse_if_match, parse_query, take_wait
from trivet.gateway.routes import all_endpoints, routes

TABLE = routes(all_endpoints())
DOCUMENT = document(TABLE)
HERE = {"project": "red", "name": "web"}


def test_every_offered_operation_has_a_route_and_no_internal_one() -> None:
    offered = {e.op for e in all_endpoints() if e.http}
    internal = {e.op for e in all_endpoints() if e.policy.audience is Audience.INTERNAL}
    assert {r.endpoint.op for r in TABLE} == offered - internal
    assert internal
    assert not {r.endpoint.op for r in TABLE} & internal


def test_every_route_is_in_the_document_with_its_policy_and_its_errors() -> None:
    for route in TABLE:
        operation = DOCUMENT["paths"][route.http.path][route.http.method.lower()]
        policy = operation["x-trivet-policy"]
        assert policy["audience"] == route.endpoint.policy.audience.value
        assert policy.get("permission", "") == route.endpoint.policy.permission
        assert {str(route.http.status), "400", "401", "403", "503"} <= set(operation["responses"])
        waits = "wait" in {p["name"] for p in operation["parameters"]}
        assert waits == route.waits


def test_every_operation_of_the_document_has_a_policy_and_an_id_of_its_own() -> None:
    operations = [o for path in DOCUMENT["paths"].values() for o in path.values()]
    assert all(o["x-trivet-policy"] for o in operations)
    ids = [o["operationId"] for o in operations]
    assert len(set(ids)) == len(ids)


def test_every_reference_in_the_document_leads_somewhere() -> None:
    def refs(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*(refs(v) for v in value.values()))
        return set().union(*(refs(v) for v in value)) if isinstance(value, list) else set()

    found = refs(DOCUMENT)
    assert found
    for ref in found:
        target: Any = DOCUMENT
        for part in ref.removeprefix("#/").split("/"):
            target = target[part]


def test_what_a_caller_cannot_set_is_not_in_the_document() -> None:
    paths = DOCUMENT["paths"]
    create = paths["/v1/projects/{project}/vms"]["post"]
    body = create["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(body) == {"kind", "meta", "spec"}
    edit = paths["/v1/projects/{project}/vms/{name}"]["patch"]
    body = edit["requestBody"]["content"]["application/merge-patch+json"]["schema"]["properties"]
    assert set(body) == {"spec", "labels"}
    assert {"If-Match", "wait"} <= {p["name"] for p in edit["parameters"]}
    lists = paths["/v1/vms"]["get"]
    assert "project" not in {p["name"] for p in lists["parameters"]}


def test_every_code_is_in_the_document() -> None:
    problem_schema = document(TABLE)["components"]["schemas"]["Problem"]
    assert problem_schema["properties"]["code"]["enum"] == sorted(CODES)


def test_a_create_takes_its_project_from_the_path() -> None:
    body = {"meta": {"name": "web"}, "spec": {"vcpus": 2, "disks": [{"size_gib": 1}]}}
    request: Any = assemble(VMS.create, {"project": "red"}, {}, body)
    assert (request.meta.project, request.meta.name, request.spec.vcpus) == ("red", "web", 2)
    again: Any = assemble(
        VMS.create, {"project": "red"}, {}, {**body, "meta": {"name": "web", "project": "red"}}
    )
    assert again == request


def test_queries_are_text_and_bodies_are_not() -> None:
    listed: Any = assemble(VMS.list, {"project": "red"}, {"limit": "7"}, {})
    assert listed.limit == 7
    with pytest.raises(Refused):
        assemble(STOP, HERE, {}, {"grace_s": "7"})


def test_if_match_goes_where_a_revision_is_asked_for() -> None:
    edit: Any = assemble(VMS.edit, HERE, {}, {"spec": {"vcpus": 2}}, 17)
    assert edit.revision == 17
    with pytest.raises(Refused, match="If-Match"):
        assemble(STOP, HERE, {}, {}, 17)


@pytest.mark.parametrize(
    ("endpoint", "query", "body"),
    [
        (VMS.get, {"settle_s": "3"}, {}),
        (VMS.get, {}, {"name": "web"}),
        (VMS.delete, {"missing_ok": "true"}, {}),
        (VMS.delete, {"revision": "1"}, {}),
        (VMS.edit, {}, {"revision": 1}),
        (VMS.edit, {"spec": "{}"}, {}),
        (VMS.create, {}, {"meta": {"name": "x"}, "spec": {}, "owner": None}),
        (STOP, {}, {"name": "other"}),
        (STOP, {}, {"project": "blue"}),
    ],
)
def test_what_a_caller_cannot_set_is_refused(
    endpoint: Any, query: dict[str, str], body: dict[str, Any]
) -> None:
    path = {"project": "red"} if endpoint is VMS.create else HERE
    with pytest.raises(Refused) as caught:
        assemble(endpoint, path, query, body)
    assert caught.value.code is MALFORMED


@given(st.binary(max_size=200))
def test_any_body_is_an_object_or_refused(data: bytes) -> None:
    try:
        assert isinstance(parse_body(data), dict)
    except Refused as error:
        assert error.code is MALFORMED  # noqa: PT017


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(st.sampled_from(["meta", "spec", "kind", "owner", "x"]), json_values))
def test_any_object_is_a_request_or_refused(body: dict[str, Any]) -> None:
    try:
        assemble(VMS.create, {"project": "red"}, {}, body)
    except Refused as error:
        assert error.code is MALFORMED  # noqa: PT017


def test_parameters_are_given_once() -> None:
    assert parse_query([("a", "1"), ("b", "2")]) == {"a": "1", "b": "2"}
    with pytest.raises(Refused):
        parse_query([("a", "1"), ("a", "1")])


def test_wait_is_taken_out_of_the_query() -> None:
    query = {"wait": "2.5", "limit": "1"}
    assert take_wait(query, 60) == 2.5
    assert query == {"limit": "1"}
    assert take_wait(query, 60) == 0


@pytest.mark.parametrize(("header", "revision"), [(None, None), ("*", None), ('"17"', 17)])
def test_if_match(header: str | None, revision: int | None) -> None:
    assert parse_if_match(header) == revision


def test_a_problem_has_a_type_a_code_and_what_would_be_accepted() -> None:
    told = problem(Refused(NOT_FOUND, "there is no vm web", hint="look again"), "r1")
    assert told == {
        "type": problem_type("resource.not_found"),
        "code": "resource.not_found",
        "title": NOT_FOUND.title,
        "status": 404,
        "detail": "there is no vm web",
        "request_id": "r1",
        "hint": "look again",
    }


@pytest.mark.parametrize(("after_s", "header"), [(None, "1"), (0.2, "1"), (2.1, "3")])
def test_retry_says_when(after_s: float | None, header: str) -> None:
    headers = headers_of(Retry(TIMEOUT, "slow", retry_after_s=after_s), "r1")
    assert headers["Retry-After"] == header


def test_a_foreign_exception_tells_nothing(caplog: Any) -> None:
    error = as_trivet_error(RuntimeError("the password is x"), "r1")
    assert "password" not in str(problem(error, "r1"))
    assert "password" in caplog.text


@pytest.mark.parametrize(
    ("asked", "subject"),
    [
        (None, "trivet.evt.>"),
        (">", "trivet.evt.>"),
        ("compute.>", "trivet.evt.compute.>"),
        ("compute", "trivet.evt.compute.>"),
        ("*.vm", "trivet.evt.*.vm.>"),
        ("compute.vm.started", "trivet.evt.compute.vm.started.>"),
        ("trivet.compute.vm.started.v1", "trivet.evt.compute.vm.started.v1"),
    ],
)
def test_subjects(asked: str | None, subject: str) -> None:
    assert bus_subject(asked) == subject


@pytest.mark.parametrize("asked", ["", ".", "a..b", ">.a", "a b", "a.b.c.d.e", "$JS.>", "a.>.b"])
def test_bad_subjects_are_refused(asked: str) -> None:
    with pytest.raises(Refused):
        bus_subject(asked)


@pytest.mark.parametrize(
    ("since", "last", "first"),
    [(None, None, None), ("5", None, 5), ("0", None, 1), ("5", "9", 10), (None, "0", 1)],
)
def test_where_a_stream_begins(since: str | None, last: str | None, first: int | None) -> None:
    assert first_seq(since, last) == first


@pytest.mark.parametrize(
    ("grants", "asked", "sees"),
    [
        ((), None, False),
        ((Grant(project="red", permissions=("compute.vm.get",)),), None, True),
        ((Grant(project="red", permissions=("compute.vm.get",)),), "red", True),
        ((Grant(project="red", permissions=("compute.vm.get",)),), "blue", False),
        ((Grant(project="red", permissions=("storage.*",)),), None, False),
        ((Grant(project="blue", permissions=("*",)),), None, False),
        ((Grant(project="*", permissions=("*",)),), None, True),
    ],
)
def test_who_sees_an_event(grants: tuple[Grant, ...], asked: str | None, sees: bool) -> None:
    event = CloudEvent.model_validate(
        {
            "id": "compute/1/0",
            "source": "/compute",
            "type": "trivet.compute.vm.started.v1",
            "subject": "vm-1",
            "time": "2026-01-02T03:04:05Z",
            "data": {
                "kind": "Vm",
                "id": "vm-1",
                "name": "web",
                "project": "red",
                "generation": 1,
                "phase": "ready",
            },
        }
    )
    assert visible(event, Caller(user="u", grants=grants), asked) is sees
