"""Every field of every kind with values that it can't take: refused with the place, or taken.

The fields come from the models themselves, so that a new one is tried as soon as it is declared.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from trivet.contracts.compute.endpoints.images import CRUD as IMAGES
from trivet.contracts.compute.endpoints.vms import CRUD as VMS
from trivet.contracts.endpoint import Crud, declared
from trivet.contracts.network.endpoints.networks import CRUD as NETWORKS
from trivet.contracts.network.endpoints.ports import CRUD as PORTS
from trivet.contracts.security.endpoints.address_sets import CRUD as SETS
from trivet.contracts.security.endpoints.projects import CRUD as PROJECTS
from trivet.contracts.security.endpoints.roles import CRUD as ROLES
from trivet.contracts.security.endpoints.security_groups import CRUD as GROUPS
from trivet.contracts.security.endpoints.users import CRUD as USERS
from trivet.contracts.storage.endpoints.pools import CRUD as POOLS
from trivet.contracts.storage.endpoints.snapshots import CRUD as SNAPSHOTS
from trivet.contracts.storage.endpoints.volumes import CRUD as VOLUMES

PLACES: dict[str, tuple[Crud[Any], str, dict[str, Any]]] = {
    crud.kind.name: (crud, path, spec)
    for crud, path, spec in (
        (VMS, "/v1/projects/default/vms", {}),
        (IMAGES, "/v1/projects/default/images", {"source": {"file": "absent"}}),
        (VOLUMES, "/v1/projects/default/volumes", {"size_gib": 1}),
        (SNAPSHOTS, "/v1/projects/default/snapshots", {"volumes": ["there"]}),
        (NETWORKS, "/v1/projects/default/networks", {"subnets": ["10.9.0.0/24"]}),
        (PORTS, "/v1/projects/default/ports", {"network": "there"}),
        (GROUPS, "/v1/projects/default/security-groups", {}),
        (SETS, "/v1/projects/default/address-sets", {}),
        (POOLS, "/v1/pools", {"members": [{"node": "n1", "file_gib": 1}]}),
        (ROLES, "/v1/roles", {"permissions": ["compute.vm.get"]}),
        (USERS, "/v1/users", {}),
        (PROJECTS, "/v1/projects", {}),
    )
}
OTHERWISE = {"/v1/projects/default/networks": {"subnets": ["10.11.0.0/24"]}}
"""What a second one needs to fall over its name alone."""

JSON = {"Content-Type": "application/json"}
NESTED: Any = 1
for _ in range(150):
    NESTED = [NESTED]
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    "",
    "x",
    "a" * 70_000,
    "we\x00b\x1b[31m\n",
    "\u202e💾é",
    "../../etc/passwd",
    "*",
    [],
    {},
    ["x", {}, 5],
    {"": {"a": None}},
    NESTED,
)


def test_every_kind_that_can_be_made_is_here() -> None:
    made = {
        e.kind.name
        for service in ("compute", "storage", "network", "security")
        for e in declared(service)
        if e.verb == "create" and e.http and e.kind and e.op == f"{e.kind.name}.create"
    }
    assert made - set(PLACES) <= {"token"}, "a kind without its bad input"


def paths_of(schema: dict[str, Any], defs: dict[str, Any], depth: int = 0) -> Iterator[list[Any]]:
    """The places of all fields below a schema; a list's first item stands for all."""
    if "$ref" in schema:
        schema = defs[schema["$ref"].rsplit("/", 1)[1]]
    for option in schema.get("anyOf", ()):
        yield from paths_of(option, defs, depth)
    if depth < 4:
        for name, value in schema.get("properties", {}).items():
            yield [name]
            yield from ([name, *rest] for rest in paths_of(value, defs, depth + 1))
        if "items" in schema:
            yield [0]
            yield from ([0, *rest] for rest in paths_of(schema["items"], defs, depth + 1))


def put(value: Any, path: list[Any], new: Any) -> Any:
    """`value` with `new` at the path; what is missing on the way is made."""
    if not path:
        return new
    first, *rest = path
    if isinstance(first, int):
        items = list(value) if isinstance(value, list) else []
        items[0:1] = [put(items[0] if items else {}, rest, new)]
        return items
    made = dict(value) if isinstance(value, dict) else {}
    made[first] = put(made.get(first, {}), rest, new)
    return made


def places_of(kind: str) -> list[list[Any]]:
    crud, _, _ = PLACES[kind]
    schema = crud.kind.spec_model.model_json_schema()
    found = [list(t) for t in dict.fromkeys(map(tuple, paths_of(schema, schema.get("$defs", {}))))]
    return [["spec", *path] for path in found] + [
        ["spec"],
        ["meta"],
        ["meta", "name"],
        ["meta", "project"],
        ["meta", "labels"],
        ["meta", "labels", "a"],
        ["kind"],
        ["unknown"],
        ["spec", "unknown"],
    ]


def check(reply: Any, what: str) -> None:
    assert reply.status_code < 500, f"{what}: {reply.text[:500]}"
    if reply.status_code < 400:
        return
    assert reply.headers["Content-Type"] == "application/problem+json", what
    problem = reply.json()
    assert len(reply.content) < 20_000, what
    assert problem.get("hint") or problem["errors"], f"{what}: {problem}"
    for error in problem.get("errors", ()):
        assert error["where"], what
        assert error["message"], what


def tried(kind: str, each: int) -> list[tuple[list[Any], Any]]:
    """Every place with `each` of the values, chosen by a fixed seed."""
    chance = random.Random(kind)
    return [(place, value) for place in places_of(kind) for value in chance.sample(VALUES, each)]


async def wrong_in_a_create(node: Any, kind: str, each: int) -> None:
    _, path, spec = PLACES[kind]
    whole = {"meta": {"name": "bad"}, "spec": spec}
    refused = 0
    for place, value in tried(kind, each):
        body = json.dumps(put(copy.deepcopy(whole), place, value))
        reply = await node.http.post(path, content=body, headers=JSON)
        check(reply, f"{kind} {place} = {str(value)[:40]!r}")
        refused += reply.status_code >= 400
        if reply.status_code == 201:
            await node.http.delete(f"{path}/{reply.json()['meta']['name']}?wait=5")
    assert refused > each
    assert (await node.http.get(path)).status_code == 200


async def wrong_in_a_patch(node: Any, kind: str, each: int) -> None:
    _, path, spec = PLACES[kind]
    made = await node.http.post(path, json={"meta": {"name": "good"}, "spec": spec})
    assert made.status_code == 201, made.text
    for place, value in tried(kind, each):
        reply = await node.http.patch(
            f"{path}/good", content=json.dumps(put({}, place, value)), headers=JSON
        )
        check(reply, f"{kind} {place} = {str(value)[:40]!r}")


async def prepared(node: Any) -> None:
    """What some kinds need."""
    await node.settled("/v1/pools", meta={"name": "default"}, spec=PLACES["pool"][2])
    disk = {"size_gib": 1}
    await node.settled("/v1/projects/default/volumes", meta={"name": "there"}, spec=disk)
    net = {"subnets": ["10.10.0.0/24"]}
    await node.settled("/v1/projects/default/networks", meta={"name": "there"}, spec=net)


async def test_a_field_that_is_wrong_is_named(node: Any) -> None:
    await prepared(node)
    for kind in sorted(PLACES):
        await wrong_in_a_create(node, kind, 2)


async def test_a_patch_that_is_wrong_is_named(node: Any) -> None:
    await prepared(node)
    for kind in sorted(PLACES):
        await wrong_in_a_patch(node, kind, 2)


@pytest.mark.soak
@pytest.mark.parametrize("kind", sorted(PLACES))
async def test_every_field_with_every_value(node: Any, kind: str) -> None:
    await prepared(node)
    await wrong_in_a_create(node, kind, len(VALUES))
    await wrong_in_a_patch(node, kind, len(VALUES))


async def test_a_name_that_is_taken_is_told(node: Any) -> None:
    await prepared(node)
    for _, path, spec in PLACES.values():
        body = {"meta": {"name": "twice"}, "spec": spec}
        first = await node.http.post(path, json=body)
        assert first.status_code == 201, first.text
        again = await node.http.post(
            path, json={**body, "spec": {**spec, **OTHERWISE.get(path, {})}}
        )
        assert (again.status_code, again.json()["code"]) == (409, "resource.name_taken"), again.text


UNKNOWN = [
    ("vms", {"image": "absent", "disks": [{"size_gib": 1}]}),
    ("vms", {"nics": [{"network": "absent"}]}),
    ("vms", {"disks": [{"size_gib": 1, "pool": "absent"}]}),
    ("vms", {"placement": {"nodes": ["absent"]}}),
    ("volumes", {"size_gib": 1, "pool": "absent"}),
    ("volumes", {"size_gib": 1, "source": {"volume": "absent"}}),
    ("ports", {"network": "absent"}),
    ("images", {"source": {"file": "absent"}}),
]


async def test_an_unknown_reference_is_told_at_once_or_in_the_status(node: Any) -> None:
    for number, (plural, spec) in enumerate(UNKNOWN):
        path = f"/v1/projects/default/{plural}?wait=5"
        body = {"meta": {"name": f"refers-{number}"}, "spec": spec}
        reply = await node.http.post(path, json=body)
        if reply.status_code == 201:
            status = reply.json()["status"]
            assert status["phase"] != "ready", (spec, status)
            assert any(c["message"] for c in status["conditions"] if c["status"] != "true"), status
        else:
            check(reply, plural)
            assert reply.status_code in (409, 422), reply.text
            assert "absent" in reply.text or "pool" in reply.text
