"""A network stays on a node for a while after its last port there, and no longer."""

from __future__ import annotations

from pathlib import Path

from tests.functional.network.conftest import World, settings, until

from trivet.testing.fakes import dhcp, gateway, switch
from trivet.testing.harness import Harness


async def test_the_next_port_finds_all_of_it(quiet: World) -> None:
    world = quiet
    await world.network()
    await world.port("a")
    await world.get_port("a", settle_s=5)
    made = (dict(world.switch().segments), dict(world.gateway().legs))
    await world.delete_port("a")
    await until(lambda: world.port_gone("a"))
    assert not world.switch().plugs
    assert (dict(world.switch().segments), dict(world.gateway().legs)) == made
    (served,) = world.dhcp().networks.values()
    assert not served.hosts
    await world.port("b")
    await world.get_port("b", settle_s=5)
    assert (dict(world.switch().segments), dict(world.gateway().legs)) == made


async def test_it_goes_when_its_time_is_over(tmp_path: Path) -> None:
    plugins = (switch, gateway, dhcp)
    short = settings(linger_s=0.1, look_s=0.1)
    async with Harness(tmp_path, plugins=plugins, network=short) as harness:
        world = World(harness)
        await world.start()
        await world.network()
        await world.port("a")
        await world.get_port("a", settle_s=5)
        await world.delete_port("a")
        await until(lambda: not world.switch().segments)
        assert not world.gateway().legs
        assert not world.dhcp().networks
