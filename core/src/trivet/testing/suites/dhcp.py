"""The law for DHCP drivers as tests: bind `driver` and `clients` fixtures and inherit.

`clients` is a node on which the gateways of `served(100)` and `served(200)` stand, with guests
that are real DHCP clients.
"""

from __future__ import annotations

from typing import Protocol

import pytest

from trivet.contracts.errors import NOT_FOUND, Refused
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.network.gateway_driver import DhcpDriver, DhcpHost, DhcpNetwork


class Lease(Model):
    """What a client was told."""

    address: str
    router: str
    dns: str
    mtu: int
    domain: str


class Clients(Protocol):
    """Guests that ask."""

    async def lease(self, vni: int, mac: str) -> Lease | None:
        """What a client with that MAC is told; None when nobody answers it."""
        ...

    async def resolve(self, vni: int, name: str) -> set[str]:
        """The IPv4 addresses that the network's DNS gives for a name."""
        ...

    async def interruptions(self, network: ResourceId) -> object:
        """Something that is another after the server was started anew."""
        ...


def host(number: int, **changes: object) -> DhcpHost:
    """Guest `number`."""
    plain = {
        "mac": f"02:00:00:00:00:{number:02x}",
        "addresses": (f"10.9.0.{number}", f"fd00:9::{number:x}"),
        "hostname": f"guest-{number}",
    }
    return DhcpHost.model_validate({**plain, **changes})


def served(vni: int = 100, **changes: object) -> DhcpNetwork:
    """What is served on network `network-<vni>`."""
    network = f"network-{vni:016x}"
    plain = {
        "network": network,
        "generation": 1,
        "namespace": f"tv-gw-{network[-10:]}",
        "subnets": ("10.9.0.0/24", "fd00:9::/64"),
        "gateways": ("10.9.0.1", "fd00:9::1"),
        "mtu": 1450,
        "hosts": (host(10), host(11)),
    }
    return DhcpNetwork.model_validate({**plain, **changes})


class DhcpSuite:
    """What holds for every DHCP driver."""

    async def test_nothing_is_served_at_first(self, driver: DhcpDriver) -> None:
        """And removing what is not there is fine."""
        assert await driver.served() == ()
        await driver.remove(served().network)

    async def test_a_known_guest_gets_its_lease(self, driver: DhcpDriver, clients: Clients) -> None:
        """Address, router, DNS, MTU and domain; the same after asking for it twice."""
        await driver.ensure(served())
        await driver.ensure(served())
        assert await driver.served() == (served().network,)
        assert await clients.lease(100, host(10).mac) == Lease(
            address="10.9.0.10", router="10.9.0.1", dns="10.9.0.1", mtu=1450,
            domain="trivet.internal",
        )  # fmt: skip

    async def test_a_stranger_gets_nothing(self, driver: DhcpDriver, clients: Clients) -> None:
        """Only guests that were named are answered."""
        await driver.ensure(served())
        assert await clients.lease(100, host(10).mac) is not None
        assert await clients.lease(100, "02:00:00:00:00:99") is None

    async def test_a_guest_elsewhere_has_its_name_alone(
        self, driver: DhcpDriver, clients: Clients
    ) -> None:
        """Its lease is another node's to give."""
        away = host(12, leased=False)
        await driver.ensure(served(hosts=(host(10), away)))
        assert await clients.lease(100, host(10).mac) is not None
        assert await clients.lease(100, away.mac) is None
        assert await clients.resolve(100, away.hostname) == {"10.9.0.12"}

    async def test_a_change_of_hosts_interrupts_nothing(
        self, driver: DhcpDriver, clients: Clients
    ) -> None:
        """New guests get leases, former ones none, and the server is the same one."""
        await driver.ensure(served())
        before = await clients.interruptions(served().network)
        await driver.ensure(served(hosts=(host(11, addresses=("10.9.0.77",)), host(12))))
        lease = await clients.lease(100, host(12).mac)
        assert lease is not None
        assert lease.address == "10.9.0.12"
        moved = await clients.lease(100, host(11).mac)
        assert moved is not None
        assert moved.address == "10.9.0.77"
        assert await clients.lease(100, host(10).mac) is None
        assert await clients.interruptions(served().network) == before

    async def test_an_address_goes_to_the_next_guest(
        self, driver: DhcpDriver, clients: Clients
    ) -> None:
        """Though the one before it had leased it, and never gave it back; again and again."""
        await driver.ensure(served())
        for number in (10, 12, 13):
            heir = host(number, addresses=("10.9.0.10",))
            await driver.ensure(served(hosts=(host(11), heir)))
            for guest, address in ((heir, "10.9.0.10"), (host(11), "10.9.0.11")):
                lease = await clients.lease(100, guest.mac)
                assert lease is not None
                assert lease.address == address
        assert await clients.lease(100, host(10).mac) is None

    async def test_guests_exchange_their_addresses(
        self, driver: DhcpDriver, clients: Clients
    ) -> None:
        """Each gets the other's."""
        await driver.ensure(served())
        for number in (10, 11):
            assert await clients.lease(100, host(number).mac) is not None
        swapped = (host(10, addresses=("10.9.0.11",)), host(11, addresses=("10.9.0.10",)))
        await driver.ensure(served(hosts=swapped))
        for guest in swapped:
            lease = await clients.lease(100, guest.mac)
            assert lease is not None
            assert lease.address == guest.addresses[0]

    async def test_a_change_of_the_network_is_served(
        self, driver: DhcpDriver, clients: Clients
    ) -> None:
        """Another MTU is told from then on."""
        await driver.ensure(served())
        await driver.ensure(served(mtu=1400, generation=2))
        lease = await clients.lease(100, host(10).mac)
        assert lease is not None
        assert lease.mtu == 1400

    async def test_guests_have_names(self, driver: DhcpDriver, clients: Clients) -> None:
        """Bare and with the domain; unknown names have no address."""
        await driver.ensure(served())
        assert await clients.resolve(100, "guest-11") == {"10.9.0.11"}
        assert await clients.resolve(100, "guest-11.trivet.internal") == {"10.9.0.11"}
        assert await clients.resolve(100, "guest-99.trivet.internal") == set()

    async def test_networks_are_apart(self, driver: DhcpDriver, clients: Clients) -> None:
        """Each is served by its own; removing one leaves the other."""
        await driver.ensure(served(100))
        await driver.ensure(served(200, hosts=(host(12),)))
        assert await driver.served() == (served(100).network, served(200).network)
        assert await clients.lease(200, host(10).mac) is None
        await driver.remove(served(100).network)
        await driver.remove(served(100).network)
        assert await driver.served() == (served(200).network,)
        assert await clients.lease(200, host(12).mac) is not None

    async def test_a_network_needs_its_gateway(self, driver: DhcpDriver) -> None:
        """`Refused(NOT_FOUND)` where the namespace is not there."""
        with pytest.raises(Refused) as caught:
            await driver.ensure(served(namespace="tv-gw-none"))
        assert caught.value.code is NOT_FOUND
        assert await driver.served() == ()
