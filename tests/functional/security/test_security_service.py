"""The security service on the in-memory bus, with a fake firewall and a network that answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from trivet.contracts.access import Caller, Grant
from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.endpoint import (
    DeleteRequest,
    EditRequest,
    GetRequest,
    ListRequest,
    NewMeta,
    Nothing,
    Page,
)
from trivet.contracts.errors import (
    FORBIDDEN,
    IMMUTABLE,
    IN_USE,
    INVALID,
    NAME_TAKEN,
    REFERENCE,
    UNAVAILABLE,
    Code,
    Retry,
    TrivetError,
)
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.network.endpoints.node_bindings import ENDPOINT as BINDINGS
from trivet.contracts.network.endpoints.node_bindings import BindingsResponse
from trivet.contracts.network.endpoints.ports import CRUD as PORTS
from trivet.contracts.network.port import Port, PortSpec, PortStatus
from trivet.contracts.resource import Meta
from trivet.contracts.security.audit import AuditEntry
from trivet.contracts.security.codes import LAST_ADMIN
from trivet.contracts.security.endpoints.audit_append import ENDPOINT as APPEND
from trivet.contracts.security.endpoints.audit_append import AppendRequest
from trivet.contracts.security.endpoints.audit_list import ENDPOINT as AUDIT_LIST
from trivet.contracts.security.endpoints.audit_list import AuditListRequest
from trivet.contracts.security.endpoints.audit_verify import ENDPOINT as AUDIT_VERIFY
from trivet.contracts.security.endpoints.node_protect import ENDPOINT as PROTECT
from trivet.contracts.security.endpoints.node_protect import ProtectRequest, ProtectResponse
from trivet.contracts.security.endpoints.projects import CRUD as PROJECTS
from trivet.contracts.security.endpoints.roles import CRUD as ROLES
from trivet.contracts.security.endpoints.security_groups import CRUD as GROUPS
from trivet.contracts.security.endpoints.token_create import ENDPOINT as TOKEN_CREATE
from trivet.contracts.security.endpoints.token_create import TokenCreated
from trivet.contracts.security.endpoints.token_verify import ENDPOINT as VERIFY
from trivet.contracts.security.endpoints.token_verify import VerifyRequest
from trivet.contracts.security.endpoints.tokens import CRUD as TOKENS
from trivet.contracts.security.endpoints.users import CRUD as USERS
from trivet.contracts.security.endpoints.whoami import ENDPOINT as WHOAMI
from trivet.contracts.security.firewall import Binding
from trivet.contracts.security.identity import RoleBinding, RoleSpec, TokenSpec, UserSpec
from trivet.contracts.security.identity_provider import Identity, IdentityProvider
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.security.bootstrap import bootstrap
from trivet.testing.fakes import firewall
from trivet.testing.fakes.firewall import FakeFirewall
from trivet.testing.harness import Harness
from trivet.testing.memory_store import Fault, MemoryStore

DEADLINE_S = 10.0
SECRET = "s" * 43
FIRST = f"trv_0123456789abcdef_{SECRET}"


class World:
    """The service, its firewall, and the network that tells it the node's ports."""

    def __init__(self, harness: Harness, token_file: Path) -> None:
        self.harness = harness
        self.token_file = token_file
        self.firewalls: list[FakeFirewall] = []
        self.bindings: tuple[Binding, ...] = ()

    @property
    def firewall(self) -> FakeFirewall:
        return self.firewalls[-1]

    async def network(self) -> None:
        """Ports stand behind groups as `bindings` say."""

        async def bindings(request: Nothing, call: Call) -> BindingsResponse:
            return BindingsResponse(bindings=self.bindings)

        async def ports(request: ListRequest, call: Call) -> Page[Port]:
            return Page[Port](items=tuple(port_of(b) for b in self.bindings))

        await self.harness.fake(BINDINGS, bindings, node="n1")
        await self.harness.fake(PORTS.list, ports)

    async def start(self, spoil: Callable[[Service], None] = lambda service: None) -> None:
        """Start it, and keep hold of the firewall that it opens."""

        async def opened(service: Service) -> None:
            runtime = service.runtime
            choose = runtime.plugins.choose

            async def keep(*args: Any) -> Any:
                driver = await choose(*args)
                if isinstance(driver, FakeFirewall):
                    self.firewalls.append(driver)
                return driver

            runtime.plugins.choose = keep  # type: ignore[method-assign, assignment]
            spoil(service)
            await bootstrap(service)

        await self.harness.start("security", opened)

    async def who(self, bearer: str) -> Caller | None:
        return (await self.harness.call(VERIFY, VerifyRequest(bearer=bearer))).caller

    async def first_admin(self) -> Caller:
        found: list[Caller] = []

        async def there() -> bool:
            caller = await self.who(self.token_file.read_text().strip())
            found.extend([caller] if caller else [])
            return bool(found)

        await until(there)
        return found[0]

    async def user(self, name: str, *roles: tuple[str, str], by: Caller | None = None) -> Any:
        bindings = tuple(RoleBinding(role=r, project=p) for r, p in roles)
        return await self.make(USERS.create, name, UserSpec(roles=bindings), by)

    async def token(
        self, user: str, by: Caller | None = None, expires_at: datetime | None = None
    ) -> TokenCreated:
        spec = TokenSpec(user=user, expires_at=expires_at)
        made: TokenCreated = await self.make(TOKEN_CREATE, f"{user}-token", spec, by)
        return made

    async def make(self, endpoint: Any, name: str, spec: Any, by: Caller | None = None) -> Any:
        request = endpoint.request(meta=NewMeta(name=name), spec=spec)
        return await self.harness.client.call(endpoint, request, caller=by)

    async def group(self, name: str, *rules: dict[str, Any]) -> Any:
        model = GROUPS.create.request
        return await self.harness.call(
            GROUPS.create,
            model.model_validate(
                {"meta": {"name": name, "project": "default"}, "spec": {"rules": rules}}
            ),
        )

    async def protect(self, *bindings: Binding) -> ProtectResponse:
        return await self.harness.call(PROTECT, ProtectRequest(bindings=bindings), node="n1")


async def until(holds: Callable[[], Any]) -> None:
    """Wait until it holds, or fail."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            seen = holds()
            if seen if isinstance(seen, bool) else await seen:
                return
            await asyncio.sleep(0.01)


async def code_of(call: Any) -> Code:
    with pytest.raises(TrivetError) as error:
        await call
    return error.value.code


@pytest.fixture
async def bare(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Nothing started; the token file is there. A parameter is how seldom it looks (seconds)."""
    token_file = tmp_path / "first-token"
    token_file.write_text(FIRST + "\n")
    security = {
        "firewall": "fake-firewall",
        "look_s": getattr(request, "param", 0.2),
        "bootstrap_token_file": token_file,
    }
    async with Harness(tmp_path, plugins=(firewall,), security=security) as harness:
        world = World(harness, token_file)
        await world.network()
        yield world


@pytest.fixture
async def world(bare: World) -> World:
    await bare.start()
    await bare.first_admin()
    return bare


def binding(n: int, *groups: str, generation: int = 1) -> Binding:
    return Binding(
        port=ResourceId(f"port-{n:016x}"),
        project="default",
        generation=generation,
        device=f"tvp{n:010x}",
        mac=f"02:00:00:00:00:{n:02x}",
        addresses=(f"10.9.0.{n}",),
        vni=100,
        security_groups=groups,
    )


def port_of(bound: Binding) -> Port:
    return Port(
        meta=Meta(
            id=bound.port, name=bound.port, project=bound.project, created_at=datetime.now(UTC)
        ),
        spec=PortSpec(network="lan", security_groups=bound.security_groups),
        status=PortStatus(),
    )


async def test_the_first_start_makes_an_administrator(world: World) -> None:
    caller = await world.first_admin()
    assert caller.user == "admin"
    assert caller.grants == (Grant(project="*", permissions=("*",)),)
    assert caller.token_id == "token-0123456789abcdef"
    roles = await world.harness.call(ROLES.list, ListRequest())
    assert {r.meta.name for r in roles.items} == {"admin", "operator", "member", "viewer"}
    assert all(r.status.builtin for r in roles.items)
    group = await world.harness.call(GROUPS.get, GetRequest(project="default", name="default"))
    assert [(r.protocol, r.ports) for r in group.spec.rules] == [("icmp", ()), ("tcp", ("22",))]
    said = await world.harness.client.call(WHOAMI, Nothing(), caller=caller)
    assert said.user == "admin"


async def test_a_first_token_is_made_where_none_is(bare: World) -> None:
    bare.token_file.unlink()
    await bare.start()
    await until(bare.token_file.exists)
    assert (await bare.first_admin()).user == "admin"
    assert bare.token_file.stat().st_mode & 0o777 == 0o600
    before = bare.token_file.read_text()
    await bare.harness.crash("security")
    await bare.start()
    assert (await bare.first_admin()).user == "admin"
    assert bare.token_file.read_text() == before


@pytest.mark.parametrize("kind", ["role", "project", "security-group", "token", "user"])
@pytest.mark.parametrize("fault", list(Fault))
async def test_the_first_start_survives_a_lost_write(bare: World, kind: str, fault: Fault) -> None:
    def spoil(service: Service) -> None:
        store = service.runtime.store
        assert isinstance(store, MemoryStore)
        store.fail(fault, when=lambda key: key.startswith(f"{kind}."))

    await bare.start(spoil)
    assert (await bare.first_admin()).grants == (Grant(project="*", permissions=("*",)),)
    users = await bare.harness.call(USERS.list, ListRequest())
    assert [u.meta.name for u in users.items] == ["admin"]
    tokens = await bare.harness.call(TOKENS.list, ListRequest())
    assert [t.meta.name for t in tokens.items] == ["first"]


async def test_a_cut_first_start_goes_on_with_another_token(bare: World) -> None:
    def spoil(service: Service) -> None:
        store = service.runtime.store
        assert isinstance(store, MemoryStore)
        store.fail(Fault.LOST_BEFORE, when=lambda key: key.startswith("user."), times=1000)

    await bare.start(spoil)

    async def half() -> bool:
        return bool((await bare.harness.call(TOKENS.list, ListRequest())).items)

    await until(half)
    await bare.harness.crash("security")
    bare.token_file.unlink()
    await bare.start()
    await until(bare.token_file.exists)
    assert (await bare.first_admin()).user == "admin"
    assert await bare.who(FIRST) is None


async def test_what_was_deleted_does_not_come_back_at_a_restart(world: World) -> None:
    await world.user("eve", ("admin", "*"))
    await world.harness.call(USERS.delete, DeleteRequest(name="admin"))
    await world.harness.stop("security")
    await world.start()
    assert await world.who(FIRST) is None
    users = await world.harness.call(USERS.list, ListRequest())
    assert [u.meta.name for u in users.items] == ["eve"]


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


@pytest.mark.parametrize("bare", [600.0], indirect=True)
async def test_a_changed_group_is_applied_again(world: World) -> None:
    made = await world.group("web", {"protocol": "tcp", "ports": ["80"]})
    one, two = binding(1, "web"), binding(2, "default", "web")
    answer = await world.protect(one, two)
    assert answer == ProtectResponse(protected={one.port: 1, two.port: 1})
    assert set((await world.firewall.state()).ports) == {one.port, two.port}
    edit = EditRequest(project="default", name="web", spec={"rules": []})
    await world.harness.call(GROUPS.edit, edit)

    async def renewed() -> bool:
        return (await world.firewall.state()).groups.get(made.meta.id) == 2

    await until(renewed)


@pytest.mark.parametrize("bare", [600.0], indirect=True)
async def test_a_port_behind_an_unknown_group_is_left_out(world: World) -> None:
    known, lost = binding(1, "default"), binding(2, "web")
    answer = await world.protect(known, lost)
    assert answer.protected == {known.port: 1}
    assert "no security group web" in answer.reasons[lost.port]
    await world.group("web")

    async def there() -> bool:
        return set((await world.firewall.state()).ports) == {known.port, lost.port}

    await until(there)


async def test_lost_rules_are_put_back(world: World) -> None:
    one = binding(1, "default")
    await world.protect(one)
    world.firewall.lose_rules()

    async def back() -> bool:
        return (await world.firewall.state()).ports == {one.port: 1}

    await until(back)


async def test_a_failed_apply_is_told_and_tried_again(world: World) -> None:
    world.firewall.fail_applies = 1
    one = binding(1, "default")
    with pytest.raises(TrivetError):
        await world.protect(one)
    assert (await world.protect(one)).protected == {one.port: 1}


async def test_the_ports_are_asked_for_at_the_start(bare: World) -> None:
    bare.bindings = (binding(1),)
    await bare.start()

    async def protected() -> bool:
        return (await bare.firewall.state()).ports == {binding(1).port: 1}

    await until(protected)


async def test_a_group_that_ports_stand_behind_stays(world: World) -> None:
    await world.group("web")
    world.bindings = (binding(1, "web"), binding(2, "web"))
    request = DeleteRequest(project="default", name="web")
    assert await code_of(world.harness.call(GROUPS.delete, request)) is IN_USE

    async def counted() -> bool:
        named = GetRequest(project="default", name="web")
        found = await world.harness.call(GROUPS.get, named)
        return bool(found.status.ports == 2)

    await until(counted)
    world.bindings = ()
    await world.harness.call(GROUPS.delete, request)


class Cards:
    """An identity provider that knows the bearer `card <user>`."""

    name: ClassVar[str] = "cards"
    Config: ClassVar[type[Model]] = Nothing

    def __init__(self, context: DriverContext, config: Nothing) -> None:
        pass

    @classmethod
    async def probe(cls) -> Probe:
        return Probe(usable=True, reason="for tests")

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def identify(self, bearer: str) -> Identity | None:
        word, _, user = bearer.partition(" ")
        if user == "away":
            raise Retry(UNAVAILABLE, "the directory is away")
        return Identity(user=user, token_id="card-1") if word == "card" else None


class CardsPlugin:
    @hookimpl
    def trivet_identity_providers(self) -> list[type[IdentityProvider]]:
        return [Cards]


async def test_a_plugin_proves_users_but_gives_no_rights(tmp_path: Path) -> None:
    token_file = tmp_path / "first-token"
    security = {
        "firewall": "fake-firewall",
        "identity": ["cards"],
        "bootstrap_token_file": token_file,
    }
    plugins = (firewall, CardsPlugin())
    async with Harness(tmp_path, plugins=plugins, security=security) as harness:
        world = World(harness, token_file)
        await world.start()
        await until(token_file.exists)
        await world.first_admin()
        await world.user("ann", ("viewer", "default"))
        caller = await world.who("card ann")
        assert caller is not None
        assert (caller.token_id, [g.project for g in caller.grants]) == ("card-1", ["default"])
        assert await world.who("card stranger") is None
        assert await world.who("else ann") is None
        assert await code_of(world.who("card away")) is UNAVAILABLE
        await harness.call(USERS.edit, EditRequest(name="ann", spec={"disabled": True}))
        assert await world.who("card ann") is None


async def test_a_project_in_use_stays(world: World) -> None:
    request = DeleteRequest(name="default")
    assert await code_of(world.harness.call(PROJECTS.delete, request)) is IN_USE


def entry(n: int) -> AuditEntry:
    return AuditEntry(
        at=datetime(2026, 1, 1, tzinfo=UTC),
        user="admin",
        token_id=None,
        address="192.0.2.1",
        op="vm.create",
        project="default",
        target=f"vm-{n}",
        outcome="ok",
        request_id=f"r{n}",
    )


async def test_the_audit_trail_keeps_each_request_once(world: World) -> None:
    call = world.harness.call
    first = AppendRequest(entries=(entry(1), entry(2)))
    assert (await call(APPEND, first)).last_seq == 2
    assert (await call(APPEND, first)).last_seq == 2
    assert (await call(APPEND, AppendRequest(entries=(entry(2), entry(3))))).last_seq == 3
    await world.harness.crash("security")
    await world.start()
    assert (await call(APPEND, AppendRequest(entries=(entry(3), entry(4))))).last_seq == 4
    page = await call(AUDIT_LIST, AuditListRequest(limit=3))
    assert [r.entry.target for r in page.records] == ["vm-2", "vm-3", "vm-4"]
    page = await call(AUDIT_LIST, AuditListRequest(since_seq=1, limit=1))
    assert [r.seq for r in page.records] == [1]
    report = await call(AUDIT_VERIFY, Nothing())
    assert (report.intact, report.records) == (True, 4)


async def test_a_changed_record_is_found(world: World) -> None:
    for n in range(1, 4):
        await world.harness.call(APPEND, AppendRequest(entries=(entry(n),)))
    store = world.harness.store("security")
    key = "audit.000000000002"
    kept = await store.get(key)
    assert kept is not None
    revision = await store.update(key, kept.value.replace(b"vm-2", b"vm-9"), kept.revision)
    report = await world.harness.call(AUDIT_VERIFY, Nothing())
    assert (report.intact, report.first_bad_seq) == (False, 2)
    await store.delete(key, revision)
    report = await world.harness.call(AUDIT_VERIFY, Nothing())
    assert (report.intact, report.first_bad_seq) == (False, 2)


async def test_a_trail_that_was_cut_off_is_found(world: World) -> None:
    for n in range(1, 3):
        await world.harness.call(APPEND, AppendRequest(entries=(entry(n),)))
    store = world.harness.store("security")
    kept = await store.get("audit.000000000002")
    assert kept is not None
    await store.delete("audit.000000000002", kept.revision)
    report = await world.harness.call(AUDIT_VERIFY, Nothing())
    assert (report.intact, report.first_bad_seq) == (False, 2)
