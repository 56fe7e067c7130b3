"""Quotas of a project: claimed before use, given back, and mended."""

from __future__ import annotations

import asyncio
from typing import Any

from trivet.contracts.endpoint import DeleteRequest, EditRequest, GetRequest
from trivet.contracts.errors import TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.security.codes import QUOTA
from trivet.contracts.security.endpoints.projects import CRUD as PROJECTS
from trivet.contracts.security.endpoints.quota_claim import ENDPOINT as CLAIM
from trivet.contracts.security.endpoints.quota_claim import ClaimRequest
from trivet.contracts.security.endpoints.security_groups import CRUD as GROUPS
from trivet.testing.security_world import World, binding, code_of, until


async def limit(world: World, **limits: int) -> None:
    edit = EditRequest(name="default", spec={"quotas": limits})
    await world.harness.call(PROJECTS.edit, edit)


async def usage(world: World) -> dict[str, int]:
    project = await world.harness.call(PROJECTS.get, GetRequest(name="default"))
    return dict(project.status.usage)


def claim(world: World, name: str, **amounts: int) -> Any:
    request = ClaimRequest(project="default", resource=ResourceId(name), amounts=amounts)
    return world.harness.call(CLAIM, request)


async def used(world: World, **amounts: int) -> None:
    async def so() -> bool:
        now = await usage(world)
        return all(now.get(name, 0) == amount for name, amount in amounts.items())

    await until(so)


async def test_without_limits_nothing_is_kept(world: World) -> None:
    await claim(world, "vm-1", vms=1)
    assert await usage(world) == {}
    assert await world.harness.store("security").get("quota.default") is None


async def test_many_at_once_get_no_more_than_there_is(world: World) -> None:
    await world.start(node="n2")
    await limit(world, vms=5)
    asked = (claim(world, f"vm-{n}", vms=1) for n in range(20))
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [a for a in answers if isinstance(a, TrivetError)]
    assert len(refused) == 15
    assert {a.code for a in refused} == {QUOTA}
    await used(world, vms=5)
    again = await asyncio.gather(*(claim(world, f"vm-{n}", vms=1) for n in range(20)),
                                 return_exceptions=True)  # fmt: skip
    assert [type(a) for a in again] == [type(a) for a in answers]


async def test_a_group_takes_and_gives_back(world: World) -> None:
    await limit(world, security_groups=2)
    await used(world, security_groups=1)
    await world.group("web")
    await used(world, security_groups=2)
    assert await code_of(world.group("db")) is QUOTA
    assert await code_of(world.group("web")) is QUOTA
    await world.harness.call(GROUPS.delete, DeleteRequest(project="default", name="web"))
    await used(world, security_groups=1)
    await world.group("db")


async def test_what_is_there_when_a_limit_comes_counts(world: World) -> None:
    world.bindings = (binding(1), binding(2))
    await limit(world, ports=2)
    await used(world, ports=2)
    assert await code_of(claim(world, "port-9", ports=1)) is QUOTA
    await limit(world, ports=3)
    await claim(world, "port-9", ports=1)


async def test_a_name_that_is_taken_costs_nothing(world: World) -> None:
    await limit(world, security_groups=5)
    await world.group("web")
    await code_of(world.group("web"))
    await used(world, security_groups=2)
