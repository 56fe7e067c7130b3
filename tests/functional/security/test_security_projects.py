"""Projects, and the group `default` that each of them comes with."""

from __future__ import annotations

from typing import Any

from trivet.contracts.endpoint import DeleteRequest, EditRequest, GetRequest, ListRequest
from trivet.contracts.errors import IN_USE
from trivet.contracts.resource import Phase
from trivet.contracts.security.endpoints.projects import CRUD as PROJECTS
from trivet.contracts.security.endpoints.security_groups import CRUD as GROUPS
from trivet.contracts.security.identity import PROJECT, ProjectSpec
from trivet.testing.security_world import World, code_of, until


async def _settled(world: World, name: str) -> Any:
    return await world.harness.call(PROJECTS.get, GetRequest(name=name, settle_s=10))


async def test_a_project_in_use_stays(world: World) -> None:
    await world.group("web")
    request = DeleteRequest(name="default")
    assert await code_of(world.harness.call(PROJECTS.delete, request)) is IN_USE


async def test_a_new_project_comes_with_its_group(world: World) -> None:
    await world.make(PROJECTS.create, "acme", ProjectSpec())
    assert (await _settled(world, "acme")).status.phase is Phase.READY
    named = GetRequest(project="acme", name="default")
    made = await world.harness.call(GROUPS.get, named)
    there = await world.harness.call(GROUPS.get, GetRequest(project="default", name="default"))
    assert made.spec == there.spec
    edit = EditRequest(name="acme", spec={"description": "ours"})
    await world.harness.call(PROJECTS.edit, edit)
    assert (await _settled(world, "acme")).status.observed_generation == 2


async def test_the_group_goes_with_its_project_and_not_before(world: World) -> None:
    call = world.harness.call
    await world.make(PROJECTS.create, "acme", ProjectSpec())
    await _settled(world, "acme")
    default = DeleteRequest(project="acme", name="default")
    assert await code_of(call(GROUPS.delete, default)) is IN_USE
    await call(GROUPS.edit, EditRequest(project="acme", name="default", spec={"rules": []}))
    await call(PROJECTS.delete, DeleteRequest(name="acme"))

    async def gone() -> bool:
        projects = await call(PROJECTS.list, ListRequest())
        return "acme" not in {p.meta.name for p in projects.items}

    await until(gone)
    assert (await call(GROUPS.list, ListRequest(project="acme"))).items == ()
    await world.make(PROJECTS.create, "acme", ProjectSpec())
    await _settled(world, "acme")
    again = await call(GROUPS.get, GetRequest(project="acme", name="default"))
    assert again.spec.rules, "what the old one's group had been made is not inherited"


async def test_a_project_of_before_gets_its_group(bare: World) -> None:
    """One that was stored when projects came without."""
    service = await bare.start()
    await bare.first_admin()
    await bare.make(PROJECTS.create, "acme", ProjectSpec())
    await _settled(bare, "acme")
    projects, groups = service.collection(PROJECT), bare.harness.store("security")
    entry = await groups.get("security-group.acme.default")
    assert entry is not None
    await bare.harness.stop("security")
    old = projects.get("acme")
    assert old is not None
    await projects.write(old, old.with_meta(finalizers=()))
    await groups.delete("security-group.acme.default", entry.revision)
    await bare.start()

    async def there() -> bool:
        page = await bare.harness.call(GROUPS.list, ListRequest(project="acme"))
        project = await bare.harness.call(PROJECTS.get, GetRequest(name="acme"))
        return bool(page.items) and bool(project.meta.finalizers)

    await until(there)
