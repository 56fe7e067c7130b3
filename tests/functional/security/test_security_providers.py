"""Identity providers that plugins bring."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.endpoint import (
    EditRequest,
    Nothing,
)
from trivet.contracts.errors import (
    UNAVAILABLE,
    Retry,
)
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model
from trivet.contracts.security.endpoints.users import CRUD as USERS
from trivet.contracts.security.identity_provider import Identity, IdentityProvider
from trivet.security.bootstrap import bootstrap
from trivet.testing.fakes import firewall
from trivet.testing.harness import Harness
from trivet.testing.security_world import World, code_of, until


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
        world = World(harness, token_file, bootstrap)
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
