"""Users, roles, tokens and projects: who may do what."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from trivet.contracts.access import Caller, Grant
from trivet.contracts.endpoint import (
    DeleteRequest,
    EditRequest,
    ListRequest,
)
from trivet.contracts.errors import (
    FORBIDDEN,
    IMMUTABLE,
    IN_USE,
    INVALID,
    NAME_TAKEN,
    REFERENCE,
    TrivetError,
)
from trivet.contracts.security.codes import LAST_ADMIN
from trivet.contracts.security.endpoints.roles import CRUD as ROLES
from trivet.contracts.security.endpoints.token_create import ENDPOINT as TOKEN_CREATE
from trivet.contracts.security.endpoints.token_holds import ENDPOINT as HOLDS
from trivet.contracts.security.endpoints.token_holds import HoldsRequest
from trivet.contracts.security.endpoints.token_rotate import ENDPOINT as ROTATE
from trivet.contracts.security.endpoints.token_rotate import RotateRequest
from trivet.contracts.security.endpoints.tokens import CRUD as TOKENS
from trivet.contracts.security.endpoints.users import CRUD as USERS
from trivet.contracts.security.identity import RoleSpec, TokenSpec
from trivet.contracts.stream import OnBehalf
from trivet.testing.security_world import World, code_of, until


async def test_tokens_prove_until_revoked(world: World) -> None:
    await world.user("ann", ("member", "default"))
    made = await world.token("ann")
    assert made.token.status.hash == ""
    caller = await world.who(made.secret)
    assert caller is not None
    assert [g.project for g in caller.grants] == ["default"]
    assert await world.who(made.secret[:-1] + "#") is None
    assert await world.who(made.secret + "x") is None
    listed = await world.harness.call(TOKENS.list, ListRequest())
    assert {t.status.hash for t in listed.items} == {""}
    deleted = await world.harness.call(TOKENS.delete, DeleteRequest(name="ann-token"))
    assert deleted.status.hash == ""
    assert await world.who(made.secret) is None


async def test_a_disabled_user_and_an_expired_token_prove_nothing(world: World) -> None:
    await world.user("ann")
    made = await world.token("ann")
    await world.harness.call(USERS.edit, EditRequest(name="ann", spec={"disabled": True}))
    assert await world.who(made.secret) is None
    await world.harness.call(USERS.edit, EditRequest(name="ann", spec={"disabled": False}))
    assert await world.who(made.secret) is not None
    past = datetime.now(UTC) - timedelta(seconds=1)
    assert await code_of(world.token("ann", expires_at=past)) is INVALID
    assert await code_of(world.token("ann", expires_at=datetime(2999, 1, 1))) is INVALID
    await world.user("bob")
    soon = await world.token("bob", expires_at=datetime.now(UTC) + timedelta(seconds=0.3))

    async def expired() -> bool:
        return await world.who(soon.secret) is None

    await until(expired)


async def test_what_was_begun_with_a_token_ends_with_it_or_its_right(world: World) -> None:
    async def holds(token_id: str, project: str = "default", user: str = "ann") -> bool:
        permission = "compute.vm.console"
        behalf = OnBehalf(user=user, token_id=token_id, permission=permission, project=project)
        answer = await world.harness.call(HOLDS, HoldsRequest(on_behalf=behalf))
        return answer.holds

    await world.user("ann", ("member", "default"))
    made = await world.token("ann")
    id_ = made.token.meta.id
    assert await holds(id_)
    assert not await holds(id_, "other")
    assert not await holds("token-0000000000000000")
    assert not await holds(id_, user="bob")
    await world.harness.call(USERS.edit, EditRequest(name="ann", spec={"disabled": True}))
    assert not await holds(id_)
    assert not await holds("oidc-1"), "whoever proved it, the record keeps it out"
    await world.harness.call(USERS.edit, EditRequest(name="ann", spec={"disabled": False}))
    assert await holds(id_)
    assert await holds("oidc-1")
    await world.harness.call(TOKENS.delete, DeleteRequest(name="ann-token"))
    assert not await holds(id_)


async def test_a_token_can_be_rotated_and_narrower_than_its_user(world: World) -> None:
    call = world.harness.call
    await world.user("ann", ("admin", "*"))
    made = await world.token("ann")
    rotate = RotateRequest(name="ann-token", keep_s=60)
    new = await call(ROTATE, rotate)
    assert (new.token.status.hash, new.token.status.previous_hash) == ("", "")
    assert await world.who(made.secret) is not None
    assert await world.who(new.secret) is not None
    last = await call(ROTATE, RotateRequest(name="ann-token"))
    assert await world.who(new.secret) is None
    assert await world.who(made.secret) is None
    assert await world.who(last.secret) is not None
    mid = Caller(user="mid", grants=(Grant(project="*", permissions=("security.*",)),))
    refused = world.harness.client.call(ROTATE, rotate, caller=mid)
    assert await code_of(refused) is FORBIDDEN
    spec = TokenSpec(user="ann", permissions=("compute.vm.get",), projects=("default",))
    narrow = await world.make(TOKEN_CREATE, "narrow", spec)
    caller = await world.who(narrow.secret)
    assert caller is not None
    assert caller.grants == (Grant(project="default", permissions=("compute.vm.get",)),)
    bad = TokenSpec(user="ann", permissions=("vm[x]",))
    assert await code_of(world.make(TOKEN_CREATE, "bad", bad)) is INVALID


async def test_when_a_token_was_used_last_is_listed(world: World) -> None:
    await world.user("ann")
    made = await world.token("ann")
    assert made.token.status.last_used_at is None
    await world.who(made.secret)

    async def listed() -> bool:
        tokens = (await world.harness.call(TOKENS.list, ListRequest())).items
        return any(t.meta.name == "ann-token" and t.status.last_used_at for t in tokens)

    await until(listed)


async def test_a_namesake_inherits_no_tokens(world: World) -> None:
    await world.user("ann")
    made = await world.token("ann")
    await world.harness.call(USERS.delete, DeleteRequest(name="ann"))
    await world.user("ann", ("admin", "*"))
    assert await world.who(made.secret) is None

    async def tidied() -> bool:
        tokens = await world.harness.call(TOKENS.list, ListRequest())
        return [t.meta.name for t in tokens.items] == ["first"]

    await until(tidied)


async def test_nobody_gives_what_it_does_not_have(world: World) -> None:
    mid = Caller(
        user="mid",
        grants=(Grant(project="*", permissions=("security.*", "compute.vm.get")),),
    )
    assert await code_of(world.user("eve", ("admin", "*"), by=mid)) is FORBIDDEN
    assert await code_of(world.token("admin", by=mid)) is FORBIDDEN
    wide = RoleSpec(permissions=("compute.*",))
    assert await code_of(world.make(ROLES.create, "wide", wide, mid)) is FORBIDDEN
    narrow = RoleSpec(permissions=("compute.vm.get",))
    await world.make(ROLES.create, "narrow", narrow, mid)
    await world.user("low", ("narrow", "default"), by=mid)
    await world.token("low", by=mid)
    call = world.harness.client.call
    grown = EditRequest(name="narrow", spec={"permissions": ["compute.vm.*"]})
    assert await code_of(call(ROLES.edit, grown, caller=mid)) is FORBIDDEN
    off = EditRequest(name="admin", spec={"disabled": True})
    assert await code_of(call(USERS.edit, off, caller=mid)) is FORBIDDEN
    assert await code_of(call(USERS.delete, DeleteRequest(name="admin"), caller=mid)) is FORBIDDEN
    assert await code_of(call(TOKENS.delete, DeleteRequest(name="first"), caller=mid)) is FORBIDDEN


async def test_roles_are_kept_while_held_and_built_in_ones_for_ever(world: World) -> None:
    assert await code_of(world.user("ann", ("nothing", "*"))) is REFERENCE
    assert await code_of(world.user("ann", ("admin", "nowhere"))) is REFERENCE
    bad = RoleSpec(permissions=("compute.vm.get[x]",))
    assert await code_of(world.make(ROLES.create, "bad", bad)) is INVALID
    call = world.harness.call
    assert await code_of(call(ROLES.delete, DeleteRequest(name="viewer"))) is IMMUTABLE
    edit = EditRequest(name="viewer", spec={"permissions": ["*"]})
    assert await code_of(call(ROLES.edit, edit)) is IMMUTABLE
    viewer = RoleSpec(permissions=())
    assert await code_of(world.make(ROLES.create, "viewer", viewer)) is NAME_TAKEN
    await world.make(ROLES.create, "mine", RoleSpec(permissions=("compute.vm.get",)))
    await world.user("ann", ("mine", "default"))
    assert await code_of(call(ROLES.delete, DeleteRequest(name="mine"))) is IN_USE
    await call(USERS.delete, DeleteRequest(name="ann"))
    await call(ROLES.delete, DeleteRequest(name="mine"))


async def test_an_administrator_is_always_left(world: World) -> None:
    call = world.harness.call
    edits: tuple[dict[str, Any], ...] = ({"disabled": True}, {"roles": []})
    for edit in edits:
        request = EditRequest(name="admin", spec=edit)
        assert await code_of(call(USERS.edit, request)) is LAST_ADMIN
    assert await code_of(call(USERS.delete, DeleteRequest(name="admin"))) is LAST_ADMIN
    await world.user("eve", ("admin", "*"))
    both = (call(USERS.delete, DeleteRequest(name=name)) for name in ("admin", "eve"))
    answers = await asyncio.gather(*both, return_exceptions=True)
    assert [a.code for a in answers if isinstance(a, TrivetError)] == [LAST_ADMIN]


async def test_two_instances_leave_an_administrator(world: World) -> None:
    await world.start(node="n2")
    call = world.harness.call
    last = "admin"
    for n in range(20):
        new = f"eve{n}"
        await world.user(new, ("admin", "*"))
        off: dict[str, Any] = {"disabled": True}
        both = (call(USERS.edit, EditRequest(name=name, spec=off)) for name in (last, new))
        answers = await asyncio.gather(*both, return_exceptions=True)
        assert [a.code for a in answers if isinstance(a, TrivetError)] == [LAST_ADMIN]
        last = last if isinstance(answers[0], TrivetError) else new
    await world.user("ann", ("admin", "*"))
    deleted = (call(USERS.delete, DeleteRequest(name=name)) for name in ("ann", last))
    answers = await asyncio.gather(*deleted, return_exceptions=True)
    assert [a.code for a in answers if isinstance(a, TrivetError)] == [LAST_ADMIN]
