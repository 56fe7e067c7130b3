"""The decisions of the security service, in tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.contracts.access import Grant
from trivet.contracts.errors import INVALID, Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta, OwnerRef
from trivet.contracts.security.audit import AuditEntry, AuditRecord
from trivet.contracts.security.firewall import AddressList, Binding, FirewallState
from trivet.contracts.security.group import (
    Action,
    Rule,
    SecurityGroup,
    SecurityGroupSpec,
    SecurityGroupStatus,
)
from trivet.contracts.security.identity import (
    Role,
    RoleBinding,
    RoleSpec,
    RoleStatus,
    Token,
    TokenSpec,
    TokenStatus,
    User,
    UserSpec,
    UserStatus,
)
from trivet.security.domain.access import (
    administers,
    check_patterns,
    excess,
    grants_of,
    narrowed,
)
from trivet.security.domain.audit import Head, chain, decode, encode, head_of, verify
from trivet.security.domain.firewall import Readings, assemble, drifted, read_group
from trivet.security.domain.roles import BUILTIN
from trivet.security.domain.tokens import TokenText, parse, proves, rotated

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = TokenText("0123456789abcdef", "s" * 43)


def meta(name: str, **more: Any) -> Meta:
    return Meta(id=ResourceId(f"x-{name}"), name=name, created_at=NOW, **more)


def role(name: str, *permissions: str) -> Role:
    return Role(meta=meta(name), spec=RoleSpec(permissions=permissions), status=RoleStatus())


def user(name: str, *held: tuple[str, str], **spec: Any) -> User:
    roles = tuple(RoleBinding(role=r, project=p) for r, p in held)
    return User(meta=meta(name), spec=UserSpec(roles=roles, **spec), status=UserStatus())


def grants(*pairs: tuple[str, str]) -> tuple[Grant, ...]:
    return tuple(Grant(project=project, permissions=(what,)) for project, what in pairs)


@pytest.mark.parametrize(
    ("have", "wanted", "covered"),
    [
        ([("*", "*")], [("*", "*")], True),
        ([("*", "*")], [("p", "compute.vm.get")], True),
        ([("p", "*")], [("p", "compute.*")], True),
        ([("p", "*")], [("q", "compute.*")], False),
        ([("p", "*")], [("*", "compute.vm.get")], False),
        ([("*", "compute.*")], [("*", "compute.vm.*")], True),
        ([("*", "compute.vm.*")], [("*", "compute.*")], False),
        ([("*", "compute.*")], [("*", "*")], False),
        ([("*", "*.*.get")], [("*", "compute.vm.get")], True),
        ([("*", "*.*.get")], [("*", "compute.vm.*")], False),
        ([], [], True),
    ],
)
def test_what_rights_cover(have: Any, wanted: Any, covered: bool) -> None:
    assert (excess(grants(*have), grants(*wanted)) == ()) is covered


def test_grants_join_the_roles_of_a_project() -> None:
    roles = {r.meta.name: r for r in (role("a", "x.y.z"), role("b", "x.*", "x.y.z"))}
    held = (("a", "p"), ("b", "p"), ("b", "q"), ("gone", "*"))
    assert grants_of(user("u", *held).spec.roles, roles) == (
        Grant(project="p", permissions=("x.*", "x.y.z")),
        Grant(project="q", permissions=("x.*", "x.y.z")),
    )


@pytest.mark.parametrize(
    ("held", "permissions", "projects", "left"),
    [
        ([("*", "*")], None, None, [("*", "*")]),
        ([("*", "*")], ["compute.vm.get"], None, [("*", "compute.vm.get")]),
        ([("*", "compute.*")], ["*.*.get"], None, [("*", "compute.*.get")]),
        ([("*", "*.*.get")], ["compute.*"], None, [("*", "compute.*.get")]),
        ([("p", "compute.vm.get")], ["*"], None, [("p", "compute.vm.get")]),
        ([("p", "compute.vm.get")], ["storage.*"], None, []),
        ([("*", "*")], None, ["p"], [("p", "*")]),
        ([("p", "compute.*"), ("q", "*")], None, ["p"], [("p", "compute.*")]),
        ([("p", "*")], None, ["q"], []),
        ([("p", "*")], [], None, []),
    ],
)
def test_a_token_gives_what_both_it_and_its_user_may(
    held: Any, permissions: Any, projects: Any, left: Any
) -> None:
    found = narrowed(grants(*held), permissions, projects)
    assert [(g.project, p) for g in found for p in g.permissions] == left
    assert excess(grants(*held), found) == ()


def test_after_a_rotation_both_secrets_are_good_for_a_while() -> None:
    new = replace(TEXT, secret="t" * 43)
    kept = rotated(token(), new, NOW, timedelta(hours=1))
    later = NOW + timedelta(hours=1)
    assert [proves(t, kept, user("u"), NOW) for t in (TEXT, new)] == [True, True]
    assert [proves(t, kept, user("u"), later) for t in (TEXT, new)] == [False, True]
    at_once = rotated(kept, TEXT, NOW, timedelta())
    assert [proves(t, at_once, user("u"), NOW) for t in (TEXT, new)] == [True, False]


@pytest.mark.parametrize("text", ["", "compute..get", "a.b.c.d", "compute.vm.[a-z]", "compute.vm?"])
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(Refused) as caught:
        check_patterns(["compute.vm.get", text])
    assert caught.value.code is INVALID
    assert caught.value.errors[0].where == "spec.permissions.1"


def test_the_built_in_roles_have_patterns_that_can_be_checked() -> None:
    for spec in BUILTIN.values():
        check_patterns(spec.permissions)


@pytest.mark.parametrize(
    ("who", "administrator"),
    [
        (user("a", ("admin", "*")), True),
        (user("a", ("some", "p"), ("admin", "*")), True),
        (user("a", ("admin", "*"), disabled=True), False),
        (user("a", ("admin", "p")), False),
        (user("a", ("some", "*")), False),
        (user("a", ("admin", "*")).with_meta(deleting_at=NOW), False),
    ],
)
def test_who_administers(who: User, administrator: bool) -> None:
    assert administers(who) is administrator


def token(**changes: Any) -> Token:
    owner = OwnerRef(kind="User", id=changes.pop("owner", "x-u"), project=None, name="u")
    kept = changes.pop("hash", TEXT.hash)
    more = {"deleting_at": changes.pop("deleting_at", None)}
    return Token(
        meta=meta("t", owner=owner, **more),
        spec=TokenSpec(user="u", **changes),
        status=TokenStatus(hash=kept),
    )


@pytest.mark.parametrize(
    ("record", "holder", "proven"),
    [
        (token(), user("u"), True),
        (token(expires_at=NOW + timedelta(seconds=1)), user("u"), True),
        (token(expires_at=NOW), user("u"), False),
        (token(hash=""), user("u"), False),
        (token(hash="0" * 64), user("u"), False),
        (token(owner="x-before"), user("u"), False),
        (token(deleting_at=NOW), user("u"), False),
        (token(), user("u", disabled=True), False),
        (token(), None, False),
        (None, user("u"), False),
    ],
)
def test_when_a_token_proves(record: Token | None, holder: User | None, proven: bool) -> None:
    assert proves(TEXT, record, holder, NOW) is proven


def test_another_secret_proves_nothing() -> None:
    assert not proves(replace(TEXT, secret="t" * 43), token(), user("u"), NOW)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "trv_",
        TEXT.text[:-1],
        TEXT.text.upper(),
        " " + TEXT.text,
        TEXT.text + "!",
        "x" * 500,
    ],
)
def test_what_is_no_token(text: str) -> None:
    assert parse(text) is None


def test_a_token_is_read_back_and_not_shown() -> None:
    assert parse(TEXT.text) == TEXT
    assert TEXT.secret not in repr(TEXT)


def group(name: str, *rules: Rule, project: str = "p") -> SecurityGroup:
    return SecurityGroup(
        meta=meta(name, project=project),
        spec=SecurityGroupSpec(rules=rules),
        status=SecurityGroupStatus(),
    )


def binding(n: int, *groups: str, device: str = "", generation: int = 1) -> Binding:
    return Binding(
        port=ResourceId(f"port-{n}"),
        project="p",
        generation=generation,
        device=device or f"tvp{n}",
        mac="02:00:00:00:00:01",
        addresses=(),
        vni=1,
        security_groups=groups,
    )


def keyed(*groups: SecurityGroup) -> dict[tuple[str, str], SecurityGroup]:
    return {(g.meta.project or "", g.meta.name): g for g in groups}


def test_the_ruleset_has_only_the_groups_in_use_in_order() -> None:
    allow, deny = Rule(priority=5), Rule(priority=5, action=Action.DENY)
    groups = keyed(group("a", Rule(priority=9), allow, deny), group("b"), group("a", project="q"))
    made = assemble([binding(2, "a"), binding(1, "a")], groups, {})
    assert [b.port for b in made.ruleset.ports] == ["port-1", "port-2"]
    assert [(g.project, g.name) for g in made.ruleset.groups] == [("p", "a")]
    assert made.ruleset.groups[0].rules == (deny, allow, Rule(priority=9))
    assert made.protected == {"port-1": 1, "port-2": 1}


def test_ports_that_cannot_be_protected_are_left_out() -> None:
    bindings = [binding(1), binding(2, "elsewhere"), binding(3, device="tvp1")]
    made = assemble(bindings, keyed(group("elsewhere", project="q")), {})
    assert made.protected == {"port-1": 1}
    assert made.reasons == {
        "port-2": "there is no security group elsewhere in project p",
        "port-3": "device tvp1 is port port-1's",
    }


@given(st.permutations([binding(n, "a") for n in range(5)]))
def test_the_ruleset_does_not_depend_on_the_order(bindings: list[Binding]) -> None:
    groups = keyed(group("a"))
    assert assemble(bindings, groups, {}) == assemble(
        sorted(bindings, key=lambda b: b.port), groups, {}
    )


def test_a_port_whose_rule_names_what_is_not_there_is_left_out() -> None:
    naming = group("a", Rule(remote="set:bad"), Rule(remote="group:a"))
    members = AddressList(project="p", name="group:a", addresses=("10.0.0.1",))
    bad = AddressList(project="p", name="set:bad", addresses=())
    unused = AddressList(project="p", name="set:other", addresses=())
    known = {(found.project, found.name): found for found in (members, unused)}
    made = assemble([binding(1, "a"), binding(2)], keyed(naming), known)
    assert [p.port for p in made.ruleset.ports] == ["port-2"]
    assert "set:bad" in made.reasons[ResourceId("port-1")]
    made = assemble([binding(1, "a")], keyed(naming), {**known, ("p", "set:bad"): bad})
    assert made.ruleset.lists == (members, bad)


def test_a_group_is_read_anew_when_it_changed() -> None:
    read = Readings()
    first = group("a", Rule(remote="set:bad", priority=9), Rule(priority=5))
    assert read(first) == read_group(first)
    assert read(first.with_status(ports=3)) is read(first)
    edited = first.with_spec(SecurityGroupSpec(rules=(Rule(),)))
    assert read(edited) == read_group(edited) != read_group(first)
    read.keep([])
    assert read(edited) is not read_group(edited)
    assert read(edited) == read_group(edited)


def test_what_drifted() -> None:
    wanted = assemble([binding(1, "a")], keyed(group("a")), {}).ruleset
    port, own = ResourceId("port-1"), ResourceId("x-a")
    assert not drifted(wanted, FirewallState(ports={port: 1}, groups={own: 1}))
    assert drifted(wanted, FirewallState(ports={port: 2}, groups={own: 1}))
    assert drifted(wanted, FirewallState(ports={port: 1}, groups={}))
    assert drifted(wanted, FirewallState())


def entry(n: int) -> AuditEntry:
    return AuditEntry(
        at=NOW,
        user="admin",
        token_id=None,
        address=None,
        op="vm.create",
        project="p",
        target=f"vm-{n}",
        outcome="ok",
        request_id=f"r{n}",
    )


RECORDS = chain([entry(n) for n in range(1, 6)], Head())


def test_a_whole_trail_is_intact() -> None:
    verdict = verify(decode(encode(RECORDS)), head_of(RECORDS))
    assert (verdict.records, verdict.first_bad_seq) == (5, None)
    assert chain([entry(4), entry(5)], head_of(RECORDS[:3])) == RECORDS[3:]


@given(st.integers(0, 4))
def test_a_changed_record_is_named(n: int) -> None:
    changed = RECORDS[n].model_copy(update={"entry": entry(99)})
    assert verify([*RECORDS[:n], changed, *RECORDS[n + 1 :]], None).first_bad_seq == n + 1


@given(st.integers(0, 4))
def test_a_record_that_was_made_right_again_breaks_the_next(n: int) -> None:
    before = head_of(RECORDS[:n]) if n else Head()
    (forged,) = chain([entry(99)], before)
    verdict = verify([*RECORDS[:n], forged, *RECORDS[n + 1 :]], head_of(RECORDS))
    # The last one has no next: the head that is kept apart tells.
    assert verdict.first_bad_seq == (n + 2 if n < 4 else 5)


@pytest.mark.parametrize(
    ("records", "bad"),
    [
        ([*RECORDS[:2], *RECORDS[3:]], 3),
        ([*RECORDS[:3], RECORDS[2], *RECORDS[3:]], 4),
        ([*RECORDS[:2], None, *RECORDS[3:]], 3),
        (list(RECORDS[:3]), 4),
        ([], 1),
    ],
)
def test_missing_doubled_and_unreadable_records(
    records: list[AuditRecord | None], bad: int
) -> None:
    assert verify(records, head_of(RECORDS)).first_bad_seq == bad
