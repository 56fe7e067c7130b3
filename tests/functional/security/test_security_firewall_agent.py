"""The node's agent keeps the firewall what ports and groups say."""

from __future__ import annotations

import pytest

from trivet.contracts.endpoint import (
    DeleteRequest,
    EditRequest,
    GetRequest,
)
from trivet.contracts.errors import (
    IN_USE,
    TrivetError,
)
from trivet.contracts.model import ResourceId
from trivet.contracts.security.endpoints.node_protect import ProtectResponse
from trivet.contracts.security.endpoints.security_groups import CRUD as GROUPS
from trivet.contracts.security.group import SECURITY_GROUP
from trivet.runtime.clock import SystemClock
from trivet.runtime.collection import Collection
from trivet.testing.security_world import World, binding, code_of, until


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


@pytest.mark.parametrize("bare", [600.0], indirect=True)
async def test_a_group_made_a_moment_ago_is_looked_for(bare: World) -> None:
    service = await bare.start()
    await bare.first_admin()
    other = Collection(SECURITY_GROUP, bare.harness.store("security"), SystemClock())
    # From here on this instance hears nothing of what others write.
    service.feed._tell = lambda sink, change: None  # type: ignore[method-assign]
    there = service.collection(SECURITY_GROUP).get("default", "default")
    assert there is not None
    meta = there.meta.model_copy(update={"id": ResourceId("security-group-2"), "name": "web"})
    await other.create(there.model_copy(update={"meta": meta}))
    one = binding(1, "web")
    assert (await bare.protect(one)).protected == {one.port: 1}
