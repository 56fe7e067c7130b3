"""Sizes, disks, options and configuration: what is typed, and what it amounts to."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from trivet.cli.__main__ import build_app, one_line, with_wait
from trivet.cli.documents import difference, in_order, read_documents
from trivet.cli.output import Format, age, print_model, visible
from trivet.cli.sizes import parse_size
from trivet.cli.specs import (
    field_options,
    parse_disks,
    parse_labels,
    parse_nics,
    parse_setting,
    put,
    read_object,
    singular,
)
from trivet.client import Client
from trivet.client.client import build_request
from trivet.client.config import ClientConfig, config_file, load_config, save_config
from trivet.client.wire import error_of, http_request
from trivet.contracts.access import Grant
from trivet.contracts.compute.endpoints.vm_stop import ENDPOINT as STOP
from trivet.contracts.compute.endpoints.vms import CRUD as VMS
from trivet.contracts.compute.vm import VmSpec
from trivet.contracts.endpoint import SERVICES, declared
from trivet.contracts.errors import NOT_FOUND, Fatal, FieldError, Refused, Retry
from trivet.contracts.event import CloudEvent, ResourceFacts
from trivet.contracts.model import GIB, MIB, Model, ResourceId
from trivet.contracts.security.endpoints.audit_list import AuditPage
from trivet.contracts.security.endpoints.security_group_preview import PreviewRequest
from trivet.contracts.security.endpoints.whoami import WhoAmI
from trivet.contracts.storage.endpoints.volume_attach import ENDPOINT as ATTACH
from trivet.contracts.storage.endpoints.volume_attach import AttachRequest
from trivet.contracts.storage.volume import VolumeSpec
from trivet.gateway.requests import assemble
from trivet.gateway.routes import all_endpoints, routes


@pytest.mark.parametrize(
    ("text", "unit", "size"),
    [
        ("1", GIB, 1),
        ("1GiB", GIB, 1),
        ("1G", GIB, 1),
        ("2TiB", GIB, 2048),
        ("1.5GiB", MIB, 1536),
        ("128MiB", MIB, 128),
        (" 128 mib ", MIB, 128),
        ("1048576b", MIB, 1),
        ("3KB", 1000, 3),
    ],
)
def test_sizes(text: str, unit: int, size: int) -> None:
    assert parse_size(text, unit) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1 2", "1XiB", "500MiB", "1e3", "1GB", "9" * 30])
def test_what_is_no_whole_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|whole"):
        parse_size(text, GIB)


@pytest.mark.parametrize(
    ("given", "disks"),
    [
        ([], []),
        (["1GiB"], [{"size_gib": 1}]),
        (["1GiB,replicas=2,thin"], [{"size_gib": 1, "replicas": 2, "thin": True}]),
        (["1GiB", "2GiB"], [{"size_gib": 1}, {"size_gib": 2, "name": "disk1"}]),
        (["1GiB", "2GiB,name=data"], [{"size_gib": 1}, {"size_gib": 2, "name": "data"}]),
    ],
)
def test_disks(given: list[str], disks: list[dict[str, Any]]) -> None:
    assert parse_disks(given) == disks


def test_nics() -> None:
    assert parse_nics(["lan,address=10.0.0.5", "dmz"], ["web"]) == [
        {"network": "lan", "address": "10.0.0.5", "security_groups": ["web"]},
        {"network": "dmz", "security_groups": ["web"]},
    ]


def test_a_long_text_may_be_in_a_file(tmp_path: Path) -> None:
    option = next(o for o in field_options(VmSpec) if o.field == "user_data")
    file = tmp_path / "seed"
    file.write_text("#cloud-config\n{}\n")
    assert option.names == ("--user-data",)
    assert option.convert(f"@{file}") == "#cloud-config\n{}\n"
    assert option.convert("#cloud-config") == "#cloud-config"
    with pytest.raises(ValueError, match="can't be read"):
        option.convert(f"@{tmp_path / 'nope'}")


def test_options_of_a_spec() -> None:
    options = {o.field: o for o in field_options(VmSpec)}
    assert options["memory_mib"].names == ("--memory", "--memory-mib")
    assert options["memory_mib"].convert("1GiB") == 1024
    assert options["image"].type is str
    assert "disks" not in options
    assert options["power"].convert(options["power"].type("paused")) == "paused"
    volume = {o.field: o for o in field_options(VolumeSpec)}
    assert volume["size_gib"].names[0] == "--size"
    assert volume["size_gib"].required
    assert volume["nodes"].names == ("--node", "--nodes")
    assert volume["thin"].names == ("--thin/--no-thin",)


def test_settings_are_put_where_they_say() -> None:
    values: dict[str, Any] = {}
    for text in ("a.b=1", "a.c=[x, y]", "d=null", "e=text=more"):
        put(values, *parse_setting(text))
    assert values == {"a": {"b": 1, "c": ["x", "y"]}, "d": None, "e": "text=more"}
    with pytest.raises(ValueError, match="not an object"):
        put(values, ("d", "x"), 1)


def test_objects_and_labels(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text("vcpus: 2\n")
    assert read_object(f"@{file}") == read_object('{"vcpus": 2}') == {"vcpus": 2}
    assert parse_labels(["a=b", "c=", "d-"]) == {"a": "b", "c": "", "d": None}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["vm", "start", "web", "--wait"], ["vm", "start", "web", "--wait=300"]),
        (["vm", "start", "--wait", "web"], ["vm", "start", "--wait=300", "web"]),
        (["vm", "start", "web", "--wait", "5"], ["vm", "start", "web", "--wait", "5"]),
        (["vm", "start", "web", "--wait=5"], ["vm", "start", "web", "--wait=5"]),
        (["x", "--", "--wait"], ["x", "--", "--wait"]),
    ],
)
def test_wait_may_stand_alone(given: list[str], found: list[str]) -> None:
    assert with_wait(given) == found


def test_every_operation_over_http_is_a_command() -> None:
    groups = {g.name: g.typer_instance for g in build_app().registered_groups}
    verbs = {"get": "show"}
    for service in SERVICES:
        for endpoint in declared(service):
            if endpoint.op == "console.join":
                continue  # for browsers: whoever has this command has a token
            if endpoint.http is not None and groups[endpoint.noun] is not None:
                group: Any = groups[endpoint.noun]
                names = {c.name for c in group.registered_commands}
                assert verbs.get(endpoint.verb, endpoint.verb) in names, endpoint.op


def test_commands_of_the_api_load_nothing_that_acts_on_this_machine() -> None:
    code = "import sys; from trivet.cli.__main__ import run; run(['vm', '--help'])\n"
    code += "print([m for m in sys.modules if m in ('trivet.host.commands', 'nats', 'pyroute2')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        (WhoAmI(user="u", grants=(Grant(project="*", permissions=("*",)),)), False),
        (AuditPage(records=()), True),
    ],
)
def test_only_what_is_nothing_but_rows_is_a_table(
    model: Model, rows: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    print_model(model, Format.TABLE)
    assert ("user: u" in capsys.readouterr().out) is not rows


def test_an_error_is_one_line() -> None:
    error = Refused(
        NOT_FOUND, "no\nsuch", hint="look", errors=(FieldError(where="a.b", message="is wrong"),)
    )
    assert one_line(error) == "trivet: resource.not_found: no such; a.b: is wrong (look)"


def test_control_characters_are_shown_and_not_obeyed() -> None:
    assert visible("a\x1b[31mb\x07\n") == "a\\x1b[31mb\\x07\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (60, "1m"), (7200, "2h"), (200000, "2d")]
)
def test_ages(seconds: int, text: str) -> None:
    then = datetime(2026, 1, 1, tzinfo=UTC)
    assert age(then, then + timedelta(seconds=seconds)) == text


def test_a_difference_names_what_is_wanted_otherwise() -> None:
    wanted = {"vcpus": 3, "cpu": {"shares": 5}, "disks": [{"size_gib": 1}], "image": "tiny"}
    present = {
        "vcpus": 2,
        "cpu": {"shares": 5, "limit_pct": None},
        "disks": [{"size_gib": 1, "name": "root"}],
        "image": None,
        "power": "running",
    }
    assert difference(wanted, present) == ["vcpus: 2 -> 3", "image: None -> 'tiny'"]
    assert difference({}, present) == []
    assert difference({"disks": [{"size_gib": 2}]}, present) == ["disks[0].size_gib: 1 -> 2"]
    assert difference({"disks": []}, present) == [f"disks: {present['disks']!r} -> []"]


def test_documents_come_after_what_they_name() -> None:
    text = """
kind: Vm
meta: {name: web, project: shop}
spec: {nics: [{network: lan, security_groups: [open]}]}
---
{kind: Port, meta: {name: p}, spec: {network: lan}}
---
{kind: Volume, meta: {name: copy}, spec: {source: {volume: data}}}
---
items:
- {kind: Volume, meta: {name: data}, spec: {pool: fast}}
- {kind: Pool, meta: {name: fast}}
---
kind: SecurityGroup
meta: {name: open}
spec: {rules: [{remote: "group:inner"}, {remote: "set:home"}]}
---
{kind: SecurityGroup, meta: {name: inner}, spec: {rules: [{remote: 10.0.0.0/24}]}}
---
{kind: AddressSet, meta: {name: home}}
---
{kind: Network, meta: {name: lan}}
---
{kind: Project, meta: {name: shop}}
"""
    order = [str(one) for one in in_order(read_documents(text))]
    assert sorted(order) == sorted(str(one) for one in read_documents(text))
    for first, then in (
        ("project shop", "vm shop/web"),
        ("network lan", "vm shop/web"),
        ("network lan", "port p"),
        ("pool fast", "volume data"),
        ("volume data", "volume copy"),
        ("security-group open", "vm shop/web"),
        ("security-group inner", "security-group open"),
        ("address-set home", "security-group open"),
    ):
        assert order.index(first) < order.index(then), order


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{kind: Vm, meta: {name: a}}\n---\n{kind: Vm, meta: {name: a}}", "twice"),
        ("{kind: Vm, meta: {name: a}, sepc: {}}", "sepc"),
        ("{items: 5}", "kind is one of"),
        ("{kind: Vm, meta: {name: A}}", "meta.name"),
    ],
)
def test_a_document_that_is_wrong_is_named(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_documents(text)


@pytest.mark.parametrize(
    "text",
    [
        "kind: Spoon\nmeta: {name: a}",
        "kind: Vm\nmeta: []",
        "kind: Vm\nmeta: {name: A}",
        "- 1",
        "[",
        "kind: Vm\nmeta: {name: a}\nspec: 5",
        "kind: [Vm]\nmeta: {name: a}",
    ],
)
def test_bad_documents_are_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"document|YAML"):
        list(read_documents(text))


def test_lists_of_objects_are_read() -> None:
    (option,) = (o for o in field_options(PreviewRequest, objects=True) if o.field == "rules")
    assert option.convert('[{protocol: tcp, ports: ["80"]}]') == [
        {"protocol": "tcp", "ports": ["80"]}
    ]
    with pytest.raises(ValueError, match="not a list"):
        option.convert("{protocol: tcp}")
    assert "rules" not in {o.field for o in field_options(PreviewRequest)}


def test_configuration(tmp_path: Path) -> None:
    env = {"TRIVET_CONFIG": str(tmp_path / "deep" / "config.toml")}
    assert load_config(env) == ClientConfig()
    config = ClientConfig(url="https://h:1", token='t"\\', ca_file=Path("/x"), project="red")
    save_config(config, config_file(env))
    assert load_config(env) == config
    assert config_file(env).stat().st_mode & 0o777 == 0o600
    over = load_config({**env, "TRIVET_URL": "http://else", "TRIVET_TOKEN": "u"})
    assert (over.url, over.token, over.project) == ("http://else", "u", "red")
    assert 't"' not in repr(config)
    config_file(env).write_text("color = 1\n")
    with pytest.raises(Refused, match="color"):
        load_config(env)


TICKET = f"n1.{'0' * 64}"


def test_what_the_client_sends_is_what_the_gateway_takes() -> None:
    """The two mappings are each other's reverse, for every operation over HTTP."""
    for route in routes(all_endpoints()):
        endpoint = route.endpoint
        if endpoint.verb == "create":
            continue
        known = endpoint.request.model_fields
        given: dict[str, Any] = {"name": "web"} if "name" in known else {}
        samples = {"address": "10.0.0.1", "limit": 5, "disk": "data", "size_gib": 1}
        samples |= {"network": "lan", "nic": "0", "ticket": TICKET, "spec": {}}
        samples |= {"mode": "on", "source": "n1", "target": "n2"}
        samples |= {"new": "copy"} | ({"mode": "linked"} if endpoint.noun == "vm" else {})
        given |= {name: value for name, value in samples.items() if name in known}
        request = build_request(endpoint, given.pop("name", None), given, "red")
        sent = http_request(endpoint, request)
        places = {"project": "red", "name": "web", "ticket": TICKET}
        inside = {k: v for k, v in places.items() if f"{{{k}}}" in route.http.path}
        if route.http is not endpoint.http:
            continue
        assert sent.path == route.http.path.format(**inside)
        assert assemble(endpoint, inside, sent.query, sent.body or {}) == request


def test_what_was_not_given_is_not_sent() -> None:
    request = build_request(VMS.create, "web", {"spec": {"vcpus": 2}}, "red")
    sent = http_request(VMS.create, request)
    assert sent.body == {
        "meta": {"name": "web", "labels": {}, "project": "red"},
        "spec": {"vcpus": 2},
    }


def _event(seq: int) -> str:
    facts = ResourceFacts(
        kind="Vm", id=ResourceId("vm-1"), name="web", project="red", generation=1, phase="ready"
    )
    event = CloudEvent(
        id=f"compute/{seq}/0",
        source="/compute",
        type="trivet.compute.vm.started.v1",
        subject="vm-1",
        time=datetime(2026, 1, 1, tzinfo=UTC),
        data=facts,
    )
    return f": keep-alive\n\nid: {seq}\ndata: {event.model_dump_json()}\n\n"


def test_events_go_on_after_the_last_one_where_a_stream_breaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trivet.client.client.RECONNECT_S", 0)
    asked: list[tuple[str | None, str | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.url.params.get("since"), request.headers.get("Last-Event-ID")))
        match len(asked):
            case 1:
                return httpx.Response(200, text=_event(5) + _event(6))
            case 2:
                raise httpx.ConnectError("gone", request=request)
            case 3:
                return httpx.Response(503, json={})
            case _:
                return httpx.Response(200, text=_event(7))

    with Client("http://gateway", "t", transport=httpx.MockTransport(answer)) as client:
        events = client.events("compute.>", since=5)
        assert [next(events).seq for _ in range(3)] == [5, 6, 7]
    assert asked == [("5", None), (None, "6"), (None, "6"), (None, "6")]


def test_a_refused_stream_is_not_tried_again() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        told = {"code": "auth.unauthenticated", "title": "No", "detail": "no token"}
        return httpx.Response(401, json=told)

    with (
        Client("http://gateway", "t", transport=httpx.MockTransport(answer)) as client,
        pytest.raises(Refused, match="unauthenticated"),
    ):
        next(client.events())


def test_a_revision_is_sent_as_if_match_and_a_wait_in_the_query() -> None:
    request = build_request(VMS.edit, "web", {"spec": {"vcpus": 2}, "revision": 7}, "red")
    sent = http_request(VMS.edit, request, wait_s=5)
    assert (sent.headers, sent.query) == ({"If-Match": '"7"'}, {"wait": "5"})
    assert sent.body == {"spec": {"vcpus": 2}}


def test_names_cannot_leave_their_place_in_the_path() -> None:
    with pytest.raises(Refused):
        build_request(STOP, "../x", {}, "red")
    with pytest.raises(Refused):
        http_request(ATTACH, AttachRequest(project="red", name="v", holder="vm/1", node="n1"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "after", "kind"),
    [
        (404, None, Refused),
        (409, None, Refused),
        (409, "7", Retry),
        (500, None, Fatal),
        (503, "7", Retry),
        (503, None, Retry),
        (429, "7", Retry),
    ],
)
def test_replies_become_errors_again(status: int, after: str | None, kind: type[Exception]) -> None:
    """What says when to come again is to be asked again, whatever its status."""
    told = b'{"code": "volume.brand_new", "title": "New", "detail": "d", "hint": "h"}'
    error = error_of(status, told, after)
    assert type(error) is kind
    assert (error.code.value, error.detail, error.hint) == ("volume.brand_new", "d", "h")
    assert error.retry_after_s == (7 if after else None)


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"{}", b"\xff", b'{"code": 5}'])
def test_a_reply_that_is_no_problem_document_is_told_as_such(content: bytes) -> None:
    assert error_of(502, content, None).code.value == "internal"


@pytest.mark.parametrize(
    ("many", "one"),
    [("--addresses", "--address"), ("--nodes", "--node"), ("--policies", "--policy"),
     ("--ssh-keys", "--ssh-key"), ("--image", "--image")],
)  # fmt: skip
def test_an_option_for_many_is_also_named_for_one(many: str, one: str) -> None:
    assert singular(many) == one
