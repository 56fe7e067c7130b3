"""What a cluster has from its first start, however often it is cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from trivet.contracts.access import Grant
from trivet.contracts.endpoint import (
    DeleteRequest,
    GetRequest,
    ListRequest,
    Nothing,
)
from trivet.contracts.errors import Fatal
from trivet.contracts.security.endpoints.roles import CRUD as ROLES
from trivet.contracts.security.endpoints.security_groups import CRUD as GROUPS
from trivet.contracts.security.endpoints.tokens import CRUD as TOKENS
from trivet.contracts.security.endpoints.users import CRUD as USERS
from trivet.contracts.security.endpoints.whoami import ENDPOINT as WHOAMI
from trivet.runtime.service import Service
from trivet.security.controllers.first_start import token_in
from trivet.testing.memory_store import Fault, MemoryStore
from trivet.testing.security_world import FIRST, World, until


async def test_the_first_start_makes_an_administrator(world: World) -> None:
    caller = await world.first_admin()
    assert caller.user == "admin"
    assert caller.grants == (Grant(project="*", permissions=("*",)),)
    assert caller.token_id == "token-0123456789abcdef"
    roles = await world.harness.call(ROLES.list, ListRequest())
    assert {r.meta.name for r in roles.items} == {"admin", "operator", "member", "viewer"}
    assert all(r.status.builtin for r in roles.items)
    group = await world.harness.call(GROUPS.get, GetRequest(project="default", name="default"))
    assert [(r.protocol, r.ports) for r in group.spec.rules] == [
        ("any", ()),
        ("icmp", ()),
        ("tcp", ("22",)),
    ]
    assert group.spec.rules[0].remote == "group:default"
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


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660])
def test_a_token_that_others_can_read_is_not_used(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "token"
    file.write_text(FIRST)
    file.chmod(mode)
    with pytest.raises(Fatal, match="chmod 600"):
        token_in(file)
    file.chmod(0o600)
    assert token_in(file).text == FIRST


def test_a_link_in_place_of_the_token_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text(FIRST)
    (tmp_path / "real").chmod(0o600)
    (tmp_path / "token").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="symbolic links"):
        token_in(tmp_path / "token")
