"""What is changed on a node behind Trivet's back is mended at once where that is told, and said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.functional.network.conftest import World, settings, until

from trivet.contracts.network.network import NETWORK_REPAIRED
from trivet.contracts.network.port import PORT_REPAIRED
from trivet.testing.fakes import dhcp, gateway, switch
from trivet.testing.harness import Harness


def bridge_gone(world: World) -> None:
    made = world.switch()
    made.segments.clear()
    for name, plug in made.plugs.items():
        made.plugs[name] = plug.model_copy(update={"vni": 0})
    made.told.set()


def bridge_down(world: World) -> None:
    (segment,) = world.switch().segments.values()
    world.switch().damage(segment.network, "its bridge was down")


def gateway_gone(world: World) -> None:
    world.gateway().legs.clear()
    world.gateway().told.set()


def rules_gone(world: World) -> None:
    (leg,) = world.gateway().legs.values()
    world.gateway().damage(leg.network, "its gateway's rules were changed")


def server_gone(world: World) -> None:
    world.dhcp().networks.clear()
    world.dhcp().told.set()


def tap_gone(world: World) -> None:
    world.switch().plugs.clear()
    world.switch().told.set()


def tap_down(world: World) -> None:
    for name, plug in world.switch().plugs.items():
        world.switch().plugs[name] = plug.model_copy(update={"up": False})
    world.switch().told.set()


def mac_gone(world: World) -> None:
    (plug,) = world.switch().plugs.values()
    world.switch().damage(plug.port, "its tap's entry in the bridge was gone")


def node(world: World) -> tuple[object, ...]:
    """All that is on the node."""
    made = world.switch()
    return (
        dict(made.segments),
        dict(made.plugs),
        dict(made.wrong),
        dict(world.gateway().legs),
        dict(world.gateway().wrong),
        dict(world.dhcp().networks),
    )


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (bridge_gone, "bridge was gone"),
        (bridge_down, "bridge was down"),
        (gateway_gone, "gateway was gone"),
        (rules_gone, "rules were changed"),
        (server_gone, "DHCP server did not answer"),
    ],
)
async def test_a_networks_part_is_mended_and_said(
    quiet: World, damage: Callable[[World], None], said: str
) -> None:
    world = quiet
    await world.network()
    await world.port("a")
    await world.get_port("a", settle_s=5)
    await until(lambda: bool(world.dhcp().networks))
    before, identities = node(world), dict(world.switch().identities)
    damage(world)

    async def told() -> bool:
        condition = (await world.get_network()).status.condition("Intact")
        return condition is not None and said in condition.message

    await until(told)
    assert node(world) == before
    assert world.switch().identities == identities
    assert (await world.get_network()).status.repairs == 1
    await until(lambda: world.told(NETWORK_REPAIRED))


@pytest.mark.parametrize(
    ("damage", "said"),
    [(tap_gone, "tap was gone"), (tap_down, "tap was down"), (mac_gone, "entry in the bridge")],
)
async def test_a_port_is_mended_and_said(
    quiet: World, damage: Callable[[World], None], said: str
) -> None:
    world = quiet
    await world.network()
    await world.port("a")
    await world.get_port("a", settle_s=5)
    before = node(world)
    damage(world)

    async def told() -> bool:
        condition = (await world.get_port("a")).status.condition("Intact")
        return condition is not None and said in condition.message

    await until(told)
    assert node(world) == before
    assert (await world.get_port("a")).status.repairs == 1
    await until(lambda: world.told(PORT_REPAIRED))


async def test_what_is_not_told_is_found_at_the_safety_look(tmp_path: Path) -> None:
    plugins = (switch, gateway, dhcp)
    async with Harness(tmp_path, plugins=plugins, network=settings(look_s=0.1)) as harness:
        world = World(harness)
        await world.start()
        await world.network()
        await world.port("a")
        await world.get_port("a", settle_s=5)
        (plug,) = world.switch().plugs.values()
        world.switch().wrong[plug.port] = "its tap's entry in the bridge was gone"
        await until(lambda: not world.switch().wrong)


async def test_a_change_that_was_asked_for_is_no_drift(quiet: World) -> None:
    world = quiet
    await world.network()
    await world.port("a")
    await world.get_port("a", settle_s=5)
    await world.edit_network("lan", mtu=1400)
    await until(lambda: {p.mtu for p in world.switch().plugs.values()} == {1400})
    await world.port("b")
    await world.get_port("b", settle_s=5)
    assert (await world.get_network()).status.repairs == 0
    assert (await world.get_port("a")).status.repairs == 0
