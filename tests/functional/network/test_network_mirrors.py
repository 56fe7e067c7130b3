"""A port whose traffic is copied to another: as asked, where it can be, and said where not."""

from __future__ import annotations

import pytest
from tests.functional.network.conftest import World, until

from trivet.contracts.errors import INVALID, REFERENCE, Refused
from trivet.contracts.network.port import Mirrored
from trivet.contracts.network.switch import Plug


def plugged(world: World, device: str | None) -> Plug:
    assert device is not None
    return world.switch().plugs[device]


async def test_a_mirror_follows_the_port_it_leads_to(quiet: World) -> None:
    world = quiet
    await world.network()
    for name in ("web", "ids"):
        await world.port(name)
    ids = await world.get_port("ids", settle_s=5)
    await world.edit_port("web", mirror={"to": "ids", "direction": "egress"})
    web = await world.get_port("web", settle_s=5)
    mirror = plugged(world, web.status.device).mirror
    assert mirror is not None
    assert (mirror.device, mirror.direction) == (ids.status.device, Mirrored.EGRESS)
    told = web.status.condition("Mirrored")
    assert told is not None
    assert told.status == "true"

    # The listener goes to another node: nothing is copied, and the port says so.
    await world.edit_port("ids", node="n2")
    await until(lambda: plugged(world, web.status.device).mirror is None)

    async def said() -> bool:
        told = (await world.get_port("web")).status.condition("Mirrored")
        return told is not None and told.status == "false" and "not on this node" in told.message

    await until(said)
    assert (await world.get_port("web")).status.phase == "ready"
    await world.edit_port("ids", node="n1")
    await until(lambda: plugged(world, web.status.device).mirror is not None)
    await world.edit_port("web", mirror=None)
    await until(lambda: plugged(world, web.status.device).mirror is None)
    assert (await world.get_port("web", settle_s=5)).status.condition("Mirrored") is None


async def test_copies_go_to_another_port_and_no_further(world: World) -> None:
    await world.network()
    for name in ("a", "b", "c"):
        await world.port(name)
    await world.edit_port("a", mirror={"to": "b"})
    for source, target, code in (
        ("c", "nobody", REFERENCE),
        ("c", "c", INVALID),
        ("c", "a", INVALID),
        ("b", "c", INVALID),
    ):
        with pytest.raises(Refused) as caught:
            await world.edit_port(source, mirror={"to": target})
        assert caught.value.code is code, (source, target)
    await world.edit_port("c", mirror={"to": "b"})
    with pytest.raises(Refused) as caught:
        await world.port("d", mirror={"to": "nobody"})
    assert caught.value.code is REFERENCE
