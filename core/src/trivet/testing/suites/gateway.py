"""The law for gateway drivers as tests: bind `driver` and `ground` fixtures and inherit.

`driver` is an open driver with the prefix `tv` on an empty node; `ground` is that node: it has
segments and guests, and somebody outside who answers.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import pytest

from trivet.contracts.errors import NOT_FOUND, Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.network.gateway_driver import GatewayDriver, GatewayLeg


class GatewayDamage(StrEnum):
    """What somebody does to a gateway behind its driver's back."""

    NAMESPACE_GONE = "namespace gone"
    LINK_DOWN = "link down"
    OFF_BRIDGE = "link on no bridge"
    ADDRESS_GONE = "address gone"
    ROUTE_GONE = "default route gone"
    RULES_FLUSHED = "its rules flushed"
    NODE_RULES_GONE = "the node's rules gone"
    FORWARDING_OFF = "forwarding off"


class Ground(Protocol):
    """A node for gateways. `outside` and `outside6` answer beyond it, on IPv4 and IPv6; `node` is
    its own address there."""

    outside: str
    outside6: str
    node: str

    async def segment(self, vni: int) -> None:
        """Make an empty segment."""
        ...

    async def guest(self, name: str, vni: int, mac: str, address: str, gateway: str) -> None:
        """Plug in a guest with `address` (with prefix length) and a default route."""
        ...

    async def pings(self, guest: str, address: str) -> bool:
        """Whether `address` answers the guest."""
        ...

    async def damage(self, damage: GatewayDamage, namespace: str) -> None:
        """Do that to the gateway of network 100, which lives there."""
        ...

    async def untouched(self) -> bool:
        """Whether the node is as it was before the first leg."""
        ...


def leg(vni: int = 100, **changes: object) -> GatewayLeg:
    """The gateway of network `network-<vni>`."""
    plain = {
        "network": f"network-{vni:016x}",
        "vni": vni,
        "mac": f"02:74:76:00:00:{vni % 256:02x}",
        "addresses": ("10.9.0.1/24",),
        "mtu": 1450,
        "external": False,
        "generation": 1,
    }
    return GatewayLeg.model_validate({**plain, **changes})


NETWORK = leg().network


class GatewaySuite:
    """What holds for every gateway driver."""

    async def test_an_empty_node_has_no_legs(self, driver: GatewayDriver, ground: Ground) -> None:
        """And removing what is not there is fine."""
        assert await driver.legs() == ()
        await driver.remove_leg(NETWORK)
        assert await ground.untouched()

    async def test_a_leg_needs_its_segment(self, driver: GatewayDriver) -> None:
        """`Refused(NOT_FOUND)`, and no leg is left."""
        with pytest.raises(Refused) as caught:
            await driver.ensure_leg(leg())
        assert caught.value.code is NOT_FOUND
        assert await driver.legs() == ()

    async def test_what_was_asked_is_read_back(self, driver: GatewayDriver, ground: Ground) -> None:
        """Every field, after one call as after two."""
        await ground.segment(100)
        asked = leg(addresses=("10.9.0.1/24", "fd00:9::1/64"), external=True, generation=4)
        await driver.ensure_leg(asked)
        await driver.ensure_leg(asked)
        assert await driver.legs() == (asked,)

    async def test_gateway_and_guest_answer_each_other(
        self, driver: GatewayDriver, ground: Ground
    ) -> None:
        """On IPv4 and IPv6; an address that nobody has does not answer."""
        await ground.segment(100)
        await driver.ensure_leg(leg(addresses=("10.9.0.1/24", "fd00:9::1/64")))
        await ground.guest("a", 100, "02:00:00:00:00:0a", "10.9.0.10/24", "10.9.0.1")
        await ground.guest("b", 100, "02:00:00:00:00:0b", "fd00:9::b/64", "fd00:9::1")
        assert await ground.pings("a", "10.9.0.1")
        assert await ground.pings("b", "fd00:9::1")
        assert await driver.ping(NETWORK, "10.9.0.10", 3.0)
        assert await driver.ping(NETWORK, "fd00:9::b", 3.0)
        assert not await driver.ping(NETWORK, "10.9.0.99", 0.6)

    async def test_external_leads_outside_over_ipv6(
        self, driver: GatewayDriver, ground: Ground
    ) -> None:
        """From addresses that nobody outside knows, and only while asked."""
        await ground.segment(100)
        both = ("10.9.0.1/24", "fd00:9::1/64")
        await ground.guest("a", 100, "02:00:00:00:00:0a", "fd00:9::a/64", "fd00:9::1")
        await driver.ensure_leg(leg(addresses=both, external=True))
        assert await ground.pings("a", ground.outside6)
        await driver.ensure_leg(leg(addresses=both, external=False, generation=2))
        assert not await ground.pings("a", ground.outside6)

    async def test_external_leads_outside_and_back(
        self, driver: GatewayDriver, ground: Ground
    ) -> None:
        """Only while asked; never to the node itself; and the node is restored at the end."""
        await ground.segment(100)
        await driver.ensure_leg(leg())
        await ground.guest("a", 100, "02:00:00:00:00:0a", "10.9.0.10/24", "10.9.0.1")
        assert not await ground.pings("a", ground.outside)
        await driver.ensure_leg(leg(external=True, generation=2))
        assert await ground.pings("a", ground.outside)
        await driver.ensure_leg(leg(external=False, generation=3))
        assert not await ground.pings("a", ground.outside)
        assert await ground.pings("a", "10.9.0.1")
        await driver.ensure_leg(leg(external=True, generation=4))
        await driver.remove_leg(NETWORK)
        assert not await ground.pings("a", "10.9.0.1")
        assert await ground.untouched()

    async def test_networks_are_apart_though_they_overlap(
        self, driver: GatewayDriver, ground: Ground
    ) -> None:
        """Two networks with the same subnet both lead outside, and not to each other."""
        for vni in (100, 200):
            await ground.segment(vni)
            await driver.ensure_leg(leg(vni, external=True))
        await ground.guest("a", 100, "02:00:00:00:00:0a", "10.9.0.10/24", "10.9.0.1")
        await ground.guest("b", 200, "02:00:00:00:00:0b", "10.9.0.11/24", "10.9.0.1")
        assert await ground.pings("a", ground.outside)
        assert await ground.pings("b", ground.outside)
        assert not await ground.pings("a", "10.9.0.11")
        await driver.remove_leg(NETWORK)
        assert await ground.pings("b", ground.outside)
        assert [found.vni for found in await driver.legs()] == [200]

    async def test_addresses_are_replaced(self, driver: GatewayDriver, ground: Ground) -> None:
        """The new ones answer, the old ones no more."""
        await ground.segment(100)
        await driver.ensure_leg(leg())
        await ground.guest("a", 100, "02:00:00:00:00:0a", "10.9.0.10/24", "10.9.0.2")
        await driver.ensure_leg(leg(addresses=("10.9.0.2/24",), generation=2))
        assert await ground.pings("a", "10.9.0.2")
        assert not await ground.pings("a", "10.9.0.1")

    async def test_each_network_has_its_own_namespace(self, driver: GatewayDriver) -> None:
        """The name is told before the gateway is there, and begins with the prefix."""
        names = {driver.namespace(leg(vni).network) for vni in (100, 200)}
        assert len(names) == 2
        assert all(name.startswith("tv") for name in names)

    async def test_ping_from_no_gateway_is_refused(self, driver: GatewayDriver) -> None:
        """Not "no answer": there was nobody to ask."""
        with pytest.raises(Refused) as caught:
            await driver.ping(ResourceId("network-00000000000000ff"), "10.9.0.1", 0.5)
        assert caught.value.code is NOT_FOUND

    @pytest.mark.parametrize("damage", list(GatewayDamage))
    async def test_damage_is_seen_and_mended(
        self, driver: GatewayDriver, ground: Ground, damage: GatewayDamage
    ) -> None:
        """By `legs` or by `drift`; the call that makes a leg mends it."""
        await ground.segment(100)
        asked = leg(external=True)
        await driver.ensure_leg(asked)
        await ground.guest("a", 100, "02:00:00:00:00:0a", "10.9.0.10/24", "10.9.0.1")
        assert await ground.pings("a", ground.outside)
        assert await driver.drift() == ()
        await ground.damage(damage, driver.namespace(NETWORK))
        assert not await ground.pings("a", ground.outside)
        assert await driver.legs() != (asked,) or [d.concerns for d in await driver.drift()]
        await driver.ensure_leg(asked)
        assert await driver.legs() == (asked,)
        assert await driver.drift() == ()
        assert await ground.pings("a", ground.outside)
        await driver.remove_leg(NETWORK)
        assert await ground.untouched()
