"""Whatever is sent, the answer is a problem document of the caller's fault, never of ours."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from trivet.gateway import dispatch
from trivet.gateway.limits import Limits

VMS = "/v1/projects/red/vms"
JSON = {"Content-Type": "application/json"}


def _spec(**spec: Any) -> bytes:
    return json.dumps({"meta": {"name": "web"}, "spec": spec}).encode()


def _meta(**meta: Any) -> bytes:
    return json.dumps({"meta": meta, "spec": {}}).encode()


BODIES: dict[str, bytes] = {
    "empty": b"",
    "blank": b"  \n",
    "not json": b"hello",
    "cut": b'{"meta": {"name": "we',
    "two values": b"{}{}",
    "null": b"null",
    "list": b"[]",
    "number": b"17",
    "string": b'"x"',
    "not utf-8": b'{"meta": {"name": "\xff\xfe"}, "spec": {}}',
    "utf-16": json.dumps({"meta": {"name": "web"}, "spec": {}}).encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf{}",
    "lone surrogate": b'{"meta": {"name": "\\ud800"}, "spec": {}}',
    "nan": b'{"meta": {"name": "web"}, "spec": {"vcpus": NaN}}',
    "infinity": b'{"meta": {"name": "web"}, "spec": {"vcpus": Infinity}}',
    "huge number": b'{"meta": {"name": "web"}, "spec": {"vcpus": ' + b"9" * 10_000 + b"}}",
    "huge exponent": b'{"meta": {"name": "web"}, "spec": {"vcpus": 1e999999}}',
    "deep list": b'{"meta": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep object": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "text for number": _spec(vcpus="2"),
    "bool for number": _spec(vcpus=True),
    "fraction for whole": _spec(vcpus=1.5),
    "object for number": _spec(vcpus={}),
    "null for number": _spec(vcpus=None),
    "too small": _spec(vcpus=0),
    "negative": _spec(vcpus=-1),
    "too large": _spec(vcpus=10**9),
    "unknown field": _spec(cpus=2),
    "unknown nested": _spec(disks=[{"size_gib": 1, "color": "red"}]),
    "too many": _spec(disks=[{"name": f"d{n}", "size_gib": 1} for n in range(17)]),
    "incoherent": _spec(disks=[{"name": "a", "size_gib": 1}, {"name": "a", "size_gib": 2}]),
    "status given": b'{"meta": {"name": "web"}, "spec": {}, "status": {"phase": "ready"}}',
    "owner given": b'{"meta": {"name": "web"}, "spec": {}, "owner": null}',
    "wait given": b'{"meta": {"name": "web"}, "spec": {}, "settle_s": 5}',
    "no meta": b'{"spec": {}}',
    "no spec": b'{"meta": {"name": "web"}}',
    "meta is a list": b'{"meta": [], "spec": {}}',
    "no name": _meta(),
    "null name": _meta(name=None),
    "upper case": _meta(name="Web"),
    "dots": _meta(name="a.b"),
    "wildcard": _meta(name=">"),
    "empty name": _meta(name=""),
    "too long": _meta(name="a" * 64),
    "far too long": _meta(name="a" * 100_000),
    "control character": _meta(name="we\x00b"),
    "newline at the end": _meta(name="web\n"),
    "unicode": _meta(name="wéb"),
    "right to left": _meta(name="\u202eweb"),
    "emoji": _meta(name="💾"),
    "path": _meta(name="../../etc"),
    "another project": _meta(name="web", project="blue"),
    "project of a type": _meta(name="web", project=5),
    "id given": _meta(name="web", id="vm-1"),
    "revision given": _meta(name="web", revision=7),
    "label value": _meta(name="web", labels={"a": "x\ny"}),
    "label key": _meta(name="web", labels={"A b": "x"}),
    "too many labels": _meta(name="web", labels={f"k{n}": "" for n in range(65)}),
    "the same name twice": b'{"meta": {"name": "web"}, "spec": {"vcpus": 1, "vcpus": 2}}',
    "the same name twice, escaped": b'{"meta": {"name": "web", "n\\u0061me": "db"}, "spec": {}}',
    "empty key": b'{"": 1}',
    "empty nested key": b'{"meta": {"name": "web"}, "spec": {"": 1}}',
    "odd key": json.dumps({"\u0000\u202e" * 50: 1}).encode(),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_bad_body_is_the_callers_fault(site: Any, name: str) -> None:
    reply = await site.ask("POST", VMS, content=BODIES[name], headers=JSON)
    assert reply.status_code == 400, reply.text[:300]
    assert reply.headers["Content-Type"] == "application/problem+json"
    problem = reply.json()
    assert problem["code"] == "request.malformed"
    assert problem.get("hint") or all(e["where"] and e["message"] for e in problem["errors"])
    assert len(reply.content) < 10_000
    assert not [op for op, _, _ in site.cloud.calls if op == "vm.create"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"spec": []}',
        b'{"spec": {"vcpus": NaN}}',
        b'{"spec": {}, "revision": 3}',
        b'{"labels": {"a": 5}}',
        b'{"meta": {"name": "other"}}',
        b'{"name": "other", "spec": {}}',
        b'{"project": "blue"}',
    ],
)
async def test_a_bad_patch_is_the_callers_fault(site: Any, body: bytes) -> None:
    reply = await site.ask("PATCH", f"{VMS}/web", content=body, headers=JSON)
    assert (reply.status_code, reply.json()["code"]) == (400, "request.malformed")


@pytest.mark.parametrize(
    "path",
    [
        f"{VMS}?limit=x",
        f"{VMS}?limit=0",
        f"{VMS}?limit=99999999999999999999999",
        f"{VMS}?limit=1&limit=2",
        f"{VMS}?color=red",
        f"{VMS}?project=blue",
        f"{VMS}?wait=5",
        f"{VMS}?cursor=" + "x" * 600,
        f"{VMS}/web?settle_s=5",
        f"{VMS}/web?wait=-1",
        f"{VMS}/web?wait=61",
        f"{VMS}/web?wait=nan",
        f"{VMS}/web?wait=",
        f"{VMS}/web?%ff=%00",
        f"{VMS}/Web",
        f"{VMS}/web%00",
        f"{VMS}/%F0%9F%92%BE",
        f"{VMS}/w.b",
        f"{VMS}/" + "a" * 5000,
        "/v1/projects/RED/vms",
        "/v1/projects/%2A/vms",
        "/v1/audit?since_seq=0",
        "/v1/events?since=x",
        "/v1/events?subject=a..b",
        "/v1/events?subject=a%20b",
        "/v1/events?subject=" + "a." * 50 + "b",
        "/v1/events?color=red",
    ],
)
async def test_a_bad_path_or_query_is_the_callers_fault(site: Any, path: str) -> None:
    reply = await site.ask("GET", path)
    assert (reply.status_code, reply.json()["code"]) == (400, "request.malformed"), reply.text


@pytest.mark.parametrize("header", ["5", 'W/"5"', '"x"', '"5", "6"', '"' + "9" * 50 + '"', "é"])
async def test_a_bad_if_match_is_the_callers_fault(site: Any, header: str) -> None:
    headers = {**JSON, "If-Match": header.encode()}
    headers_all = {"Authorization": b"Bearer admin", **headers}
    reply = await site.http.request(
        "PATCH", f"{VMS}/web", headers=headers_all, content=b'{"spec": {}}'
    )
    assert (reply.status_code, reply.json()["code"]) == (400, "request.malformed")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "a\tb"])
async def test_a_body_of_another_type_is_refused(site: Any, kind: str) -> None:
    reply = await site.ask("POST", VMS, content=b"{}", headers={"Content-Type": kind})
    assert (reply.status_code, reply.json()["code"]) == (415, "request.media_type")


async def test_a_body_over_the_bound_is_refused(make_site: Any) -> None:
    async with make_site(Limits(body_bytes=1000)) as site:
        for content in (b" " * 1001, _chunks(b" " * 400, 3)):
            reply = await site.ask("POST", VMS, content=content, headers=JSON)
            assert (reply.status_code, reply.json()["code"]) == (413, "request.too_large")


async def test_a_body_that_does_not_come_is_given_up(make_site: Any) -> None:
    async with make_site(Limits(body_read_s=0.05)) as site:
        reply = await site.ask("POST", VMS, content=_never(), headers=JSON)
        assert (reply.status_code, reply.json()["code"]) == (408, "request.too_slow")


async def test_what_grows_over_the_bound_by_its_defaults_is_refused(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MAX_REQUEST_BYTES", 900_000)
    rules = [{"ports": [], "comment": "x" * 60}] * 8000
    body = {"meta": {"name": "g"}, "spec": {"rules": rules}}
    reply = await site.ask("POST", "/v1/projects/red/security-groups", json=body)
    assert (reply.status_code, reply.json()["code"]) == (413, "request.too_large")


async def test_every_wrong_field_is_named_with_what_is_accepted(site: Any) -> None:
    reply = await site.ask("POST", VMS, content=_spec(vcpus=0, memory_mib="x"), headers=JSON)
    errors = {e["where"]: e for e in reply.json()["errors"]}
    assert set(errors) == {"spec.vcpus", "spec.memory_mib"}
    assert "1" in errors["spec.vcpus"]["accepted"]


async def _chunks(chunk: bytes, count: int) -> Any:
    for _ in range(count):
        yield chunk


async def _never() -> Any:
    yield b"{"
    await asyncio.sleep(3600)
