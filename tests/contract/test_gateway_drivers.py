"""Every gateway driver through its suite."""

import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from trivet.contracts.driver import DriverContext, NoConfig
from trivet.plugins.network.namespaces import inside
from trivet.plugins.network.netns_gateway import NetnsGateway
from trivet.testing.fakes.gateway import FakeGateway
from trivet.testing.fakes.world import FaultConfig
from trivet.testing.suites.gateway import NETWORK, GatewayDamage, GatewaySuite, leg
from trivet.testing.suites.node_ground import NodeGround, node_ground, read, shell


def connects(address: str) -> bool:
    try:
        socket.create_connection((address, 7777), timeout=1.0).close()
    except OSError:
        return False
    return True


class FakeGround:
    outside = "192.0.2.1"
    outside6 = "2001:db8:ff::1"
    node = "192.0.2.2"

    def __init__(self, driver: FakeGateway) -> None:
        self.world = driver.world
        self.world.segments = set()
        self.world.outside = {self.outside, self.outside6}
        self.places: dict[str, int] = {}

    async def segment(self, vni: int) -> None:
        assert self.world.segments is not None
        self.world.segments.add(vni)

    async def guest(self, name: str, vni: int, mac: str, address: str, gateway: str) -> None:
        self.world.guests.add((vni, address.split("/")[0]))
        self.places[name] = vni

    async def pings(self, guest: str, address: str) -> bool:
        return self.world.answers(self.places[guest], address)

    async def damage(self, damage: GatewayDamage, namespace: str) -> None:
        if damage is GatewayDamage.NAMESPACE_GONE:
            del self.world.legs[NETWORK]
        else:
            self.world.damage(NETWORK, damage.value)

    async def untouched(self) -> bool:
        return not self.world.legs


class TestFakeGateway(GatewaySuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> FakeGateway:
        return FakeGateway(DriverContext("n1", tmp_path, tmp_path), FaultConfig())

    @pytest.fixture(autouse=True)
    def ground(self, driver: FakeGateway) -> FakeGround:
        return FakeGround(driver)


@pytest.mark.root
class TestNetnsGateway(GatewaySuite):
    @pytest.fixture
    def ground(self) -> Iterator[NodeGround]:
        with node_ground() as ground:
            yield ground

    @pytest.fixture
    async def driver(self, ground: NodeGround, tmp_path: Path) -> AsyncIterator[NetnsGateway]:
        driver = NetnsGateway(DriverContext("n1", tmp_path, tmp_path), NoConfig())
        await driver.open()
        yield driver
        await driver.close()

    async def test_guests_do_not_reach_the_node(
        self, driver: NetnsGateway, ground: NodeGround
    ) -> None:
        """The node answers an echo, and nothing else: its services are not the guests'."""
        await ground.segment(100)
        await driver.ensure_leg(leg(external=True))
        await ground.guest("a", 100, "02:00:00:00:00:0a", "10.9.0.10/24", "10.9.0.1")
        with (
            socket.create_server(("0.0.0.0", 7777)),
            await inside(
                f"{ground.namespace}-out", lambda: socket.create_server(("0.0.0.0", 7777))
            ),
        ):
            guest = ground.guests["a"]
            assert await ground.pings("a", ground.outside)
            assert await ground.pings("a", ground.node)
            assert await inside(guest, lambda: connects(ground.outside))
            assert not await inside(guest, lambda: connects(ground.node))

    async def test_a_foreign_firewall_that_drops_is_passed(
        self, driver: NetnsGateway, ground: NodeGround
    ) -> None:
        """As Docker's: policy drop on FORWARD. Our rules go in, and out again."""
        await shell("nft add table ip filter")
        await shell(
            "nft 'add chain ip filter FORWARD { type filter hook forward priority 0;"
            " policy drop; }'"
        )
        before = await shell("nft list ruleset")
        await ground.segment(100)
        await driver.ensure_leg(leg(external=True))
        await driver.ensure_leg(leg(external=True))
        await ground.guest("a", 100, "02:00:00:00:00:0a", "10.9.0.10/24", "10.9.0.1")
        assert await ground.pings("a", ground.outside)
        await driver.remove_leg(NETWORK)
        assert await shell("nft list ruleset") == before

    async def test_forwarding_that_was_on_stays_on(
        self, driver: NetnsGateway, ground: NodeGround
    ) -> None:
        """Only what was changed is changed back."""
        await ground.segment(100)
        await shell("echo 1 > /proc/sys/net/ipv4/ip_forward")
        await driver.ensure_leg(leg(external=True))
        await driver.remove_leg(NETWORK)
        assert read("net/ipv4/ip_forward") == "1"

    async def test_a_new_instance_takes_over(
        self, driver: NetnsGateway, ground: NodeGround, tmp_path: Path
    ) -> None:
        """The records are enough: a restarted service sees, and removes, what is there."""
        await ground.segment(100)
        await driver.ensure_leg(leg(external=True))
        again = NetnsGateway(DriverContext("n1", tmp_path, tmp_path), NoConfig())
        await again.open()
        assert await again.legs() == (leg(external=True),)
        await shell(f"ip netns delete {again.namespace(NETWORK)}")
        assert [found.generation for found in await again.legs()] == [0]
        await again.ensure_leg(leg(external=True))
        assert await again.legs() == (leg(external=True),)
        await again.remove_leg(NETWORK)
        await again.close()
        assert await ground.untouched()

    async def test_a_gateway_whose_record_is_lost_is_found(
        self, driver: NetnsGateway, ground: NodeGround, tmp_path: Path
    ) -> None:
        """By what it says of itself; a namespace that says nothing is not ours to remove."""
        await ground.segment(100)
        await driver.ensure_leg(leg())
        await shell(f"rm {tmp_path}/leg-*.json")
        other = "tv-gw-00000000ee"
        await shell(f"ip netns add {other}")
        assert [(g.network, g.generation) for g in await driver.legs()] == [(NETWORK, 0)]
        await driver.remove_leg(NETWORK)
        assert await driver.legs() == ()
        assert await ground.untouched()
        await shell(f"ip netns delete {other}")
