"""A node whose hypervisor does not answer is told, and what happened to its VMs."""

from typing import Any

import pytest

from trivet.contracts.alarm import AlarmState
from trivet.contracts.compute.alarms import RULES
from trivet.contracts.compute.endpoints.alarms import CRUD as ALARMS
from trivet.contracts.endpoint import ListRequest


@pytest.fixture(autouse=True)
def quick(monkeypatch: Any) -> None:
    """Looks often, and does not wait before it believes."""
    monkeypatch.setattr("trivet.compute.node.checks.LONGEST_LOOK_S", 0.05)
    for rule in RULES:
        monkeypatch.setitem(rule.__dict__, "after_s", 0.0)
        monkeypatch.setitem(rule.__dict__, "clear_s", 0.05)


async def raised(world: Any) -> dict[str, str]:
    page = await world.harness.call(ALARMS.list, ListRequest())
    found = [a for a in page.items if a.status.state is AlarmState.RAISED]
    return {alarm.status.rule: alarm.status.cause for alarm in found}


async def test_a_hypervisor_that_goes_away_and_comes_back(world: Any) -> None:
    assert await raised(world) == {}
    world.host().away = True

    async def told() -> bool:
        return "hypervisor-away" in await raised(world)

    await world.eventually(told)
    assert "n1" in (await raised(world))["hypervisor-away"]
    assert (await world.node()).status.condition("Hypervisor").status == "false"
    world.host().come_back()

    async def quiet() -> bool:
        return not await raised(world)

    await world.eventually(quiet)
