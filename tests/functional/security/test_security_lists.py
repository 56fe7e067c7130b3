"""Groups and address sets as remote, hits and logs, through the service's endpoints."""

from __future__ import annotations

from typing import Any

import pytest

from trivet.contracts.endpoint import DeleteRequest, EditRequest, ListRequest, Nothing, Ref
from trivet.contracts.errors import IN_USE, REFERENCE
from trivet.contracts.security.endpoints.address_sets import CRUD as SETS
from trivet.contracts.security.endpoints.audit_list import ENDPOINT as AUDIT_LIST
from trivet.contracts.security.endpoints.audit_list import AuditListRequest
from trivet.contracts.security.endpoints.audit_verify import ENDPOINT as AUDIT_VERIFY
from trivet.contracts.security.endpoints.projects import CRUD as PROJECTS
from trivet.contracts.security.endpoints.security_group_hits import ENDPOINT as HITS
from trivet.contracts.security.endpoints.security_group_log import ENDPOINT as LOG
from trivet.contracts.security.endpoints.security_group_preview import ENDPOINT as PREVIEW
from trivet.contracts.security.endpoints.security_groups import CRUD as GROUPS
from trivet.testing.packets import Packet, Shape
from trivet.testing.security_world import World, binding, code_of, until

WELL_SPACED = pytest.mark.parametrize("bare", [600.0], indirect=True)


async def make_set(world: World, name: str, *addresses: str) -> Any:
    request = {"meta": {"name": name, "project": "default"}, "spec": {"addresses": addresses}}
    return await world.harness.call(SETS.create, SETS.create.request.model_validate(request))


def hello(sender: int, receiver: int, port: int, sport: int) -> Packet:
    one, other = binding(sender), binding(receiver)
    return Packet(
        one.device, other.device, Shape.TCP, one.mac, other.mac, one.addresses[0],
        other.addresses[0], dport=port, sport=sport,
    )  # fmt: skip


async def _lists(world: World) -> dict[str, tuple[str, ...]]:
    return {found.name: found.addresses for found in world.firewall._ruleset.lists}


@WELL_SPACED
async def test_members_of_a_group_follow_its_ports(world: World) -> None:
    await world.group("web", {"remote": "group:web"})
    one, two = binding(1, "web"), binding(2, "web")
    world.bindings = (one,)
    await world.protect(one)
    assert await _lists(world) == {"group:web": ("10.9.0.1",)}
    # A port elsewhere: this node is told by an event alone.
    world.bindings = (one, two)
    await world.port_event()

    async def grown() -> bool:
        return await _lists(world) == {"group:web": ("10.9.0.1", "10.9.0.2")}

    await until(grown)


@WELL_SPACED
async def test_an_edited_address_set_is_in_force(world: World) -> None:
    await make_set(world, "bad", "10.6.0.0/16")
    await world.group("web", {"remote": "set:bad", "action": "deny"})
    await world.protect(binding(1, "web"))
    assert await _lists(world) == {"set:bad": ("10.6.0.0/16",)}
    edit = EditRequest(project="default", name="bad", spec={"addresses": ["10.7.0.0/16"]})
    await world.harness.call(SETS.edit, edit)

    async def renewed() -> bool:
        return await _lists(world) == {"set:bad": ("10.7.0.0/16",)}

    await until(renewed)


async def test_rules_name_what_is_there_and_that_stays(world: World) -> None:
    call = world.harness.call
    assert await code_of(world.group("web", {"remote": "set:bad"})) is REFERENCE
    assert await code_of(world.group("web", {"remote": "group:db"})) is REFERENCE
    await make_set(world, "bad")
    await world.group("db")
    await world.group("web", {"remote": "set:bad"}, {"remote": "group:db"}, {"remote": "group:web"})
    for crud, name in ((SETS, "bad"), (GROUPS, "db")):
        request = DeleteRequest(project="default", name=name)
        assert await code_of(call(crud.delete, request)) is IN_USE
    assert await code_of(call(PROJECTS.delete, DeleteRequest(name="default"))) is IN_USE
    await call(GROUPS.delete, DeleteRequest(project="default", name="web"))
    await call(GROUPS.delete, DeleteRequest(project="default", name="db"))
    await call(SETS.delete, DeleteRequest(project="default", name="bad"))
    assert (await call(SETS.list, ListRequest(project="default"))).items == ()


async def test_hits_and_log_of_a_group(world: World) -> None:
    tcp = {"protocol": "tcp", "log": True}
    await world.group("web", {**tcp, "ports": ["80"]}, {**tcp, "ports": ["81"], "action": "deny"})
    world.bindings = (binding(1, "web"), binding(2))
    await world.protect(*world.bindings)
    for port, sport in ((80, 1), (80, 2), (81, 3), (82, 4)):
        world.firewall.judge(hello(2, 1, port, sport))
    named = Ref(project="default", name="web")
    hits = await world.harness.call(HITS, named)
    assert [(r.rule.ports, r.packets) for r in hits.rules] == [(("80",), 2), (("81",), 1)]
    for _ in range(2):
        log = await world.harness.call(LOG, named)
        assert [(e.destination_port, e.action.value) for e in log.entries] == [
            (80, "allow"),
            (80, "allow"),
            (81, "deny"),
        ]
    assert log.silent == ()


async def test_a_preview_tells_and_changes_nothing(world: World) -> None:
    made = await world.group("web", {"protocol": "tcp", "ports": ["80", "81"]})
    world.bindings = (binding(1, "web"), binding(2))
    await world.protect(*world.bindings)
    world.firewall.judge(hello(2, 1, 80, 1))
    world.firewall.judge(hello(2, 1, 81, 2))
    rules = [{"protocol": "tcp", "ports": ["81"]}, {"protocol": "udp", "ports": ["53"]}]
    asked = {"project": "default", "name": "web", "rules": rules}
    told = await world.harness.call(PREVIEW, PREVIEW.request.model_validate(asked))
    assert [(c.remote, c.port_number, c.after) for c in told.connections] == [
        ("10.9.0.2", 80, "deny")
    ]
    elsewhere = [(r.protocol, r.ports, r.after) for r in told.reach if r.remote == "anywhere else"]
    assert elsewhere == [("tcp", ("80",), "deny"), ("udp", ("53",), "allow")]
    assert (told.complete, told.silent) == (True, ())
    named = GROUPS.get.request(project="default", name="web")
    assert (await world.harness.call(GROUPS.get, named)).spec == made.spec


async def test_a_node_that_does_not_answer_is_named(world: World) -> None:
    await world.group("web", {"protocol": "tcp"})
    world.bindings = (binding(1, "web"),)
    world.port_node = "n7"
    hits = await world.harness.call(HITS, Ref(project="default", name="web"))
    assert hits.silent == ("n7",)
    assert [r.packets for r in hits.rules] == [None]


@WELL_SPACED
async def test_a_repair_is_at_once_and_in_the_audit_trail(world: World) -> None:
    one = binding(1, "default")
    await world.protect(one)
    world.firewall.lose_rules()

    async def back() -> bool:
        return (await world.firewall.state()).ports == {one.port: 1}

    await until(back)

    async def told() -> bool:
        page = await world.harness.call(AUDIT_LIST, AuditListRequest())
        return [(r.entry.op, r.entry.target) for r in page.records] == [("firewall.repair", "n1")]

    await until(told)
    assert (await world.harness.call(AUDIT_VERIFY, Nothing())).intact


async def test_a_group_of_ten_thousand_rules_fits_in_a_request(world: World) -> None:
    rules = ({"protocol": "tcp", "ports": ["80"], "remote": f"10.{n // 250}.{n % 250}.0/24"}
             for n in range(10_000))  # fmt: skip
    made = await world.group("big", *rules)
    assert len(made.spec.rules) == 10_000
