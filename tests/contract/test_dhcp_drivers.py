"""Every DHCP driver through its suite."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from trivet.contracts.driver import DriverContext, NoConfig
from trivet.contracts.model import ResourceId
from trivet.plugins.network.dnsmasq import (
    Dnsmasq,
    DnsmasqConfig,
    node_resolvers,
    server_arguments,
)
from trivet.plugins.network.dnsmasq_hosts import FORMER_MAX, former, given_now, host_line
from trivet.plugins.network.netns_gateway import NetnsGateway
from trivet.testing.fakes.dhcp import FakeDhcp
from trivet.testing.fakes.world import FaultConfig
from trivet.testing.suites.dhcp import DhcpSuite, Lease, host, served
from trivet.testing.suites.gateway import leg
from trivet.testing.suites.node_ground import NodeGround, node_ground, shell

TOLD = """#!/bin/sh
[ "$1" = bound ] || exit 0
printf '{"address":"%s","router":"%s","dns":"%s","mtu":%s,"domain":"%s"}' \\
  "$ip" "$router" "$dns" "$mtu" "$domain"
"""


class FakeClients:
    def __init__(self, driver: FakeDhcp) -> None:
        self.world = driver.world
        self.world.spaces = {served(100).namespace, served(200).namespace}

    async def lease(self, vni: int, mac: str) -> Lease | None:
        network = self.world.networks[served(vni).network]
        found = self.world.lease(network.network, mac)
        if found is None:
            return None
        gateway = network.gateways[0]
        return Lease(
            address=found.addresses[0], router=gateway, dns=gateway, mtu=network.mtu,
            domain=network.domain,
        )  # fmt: skip

    async def resolve(self, vni: int, name: str) -> set[str]:
        return {a for a in self.world.resolve(served(vni).network, name) if ":" not in a}

    async def interruptions(self, network: ResourceId) -> object:
        return self.world.starts[network]


class TestFakeDhcp(DhcpSuite):
    @pytest.fixture
    def driver(self, tmp_path: Path) -> FakeDhcp:
        return FakeDhcp(DriverContext("n1", tmp_path, tmp_path), FaultConfig())

    @pytest.fixture(autouse=True)
    def clients(self, driver: FakeDhcp) -> FakeClients:
        return FakeClients(driver)


class RealClients:
    """Guests in namespaces that run busybox's DHCP client and dig-like queries."""

    def __init__(self, ground: NodeGround, folder: Path) -> None:
        self.ground = ground
        self.folder = folder
        self.script = folder / "told"
        self.script.write_text(TOLD)
        self.script.chmod(0o755)

    async def card(self, vni: int, mac: str) -> str:
        name = f"{vni}{mac[-2:]}"
        if name not in self.ground.guests:
            await self.ground.card(name, vni, mac)
        return self.ground.guests[name]

    async def lease(self, vni: int, mac: str) -> Lease | None:
        space = await self.card(vni, mac)
        # -n: end without a lease; a server that was told of the guest answers at once.
        out = await shell(
            f"ip netns exec {space} busybox udhcpc -i eth0 -s {self.script} -n -q -f -t 4 -T 1"
            " -O mtu -O domain 2>/dev/null || true"
        )
        return Lease.model_validate(json.loads(out)) if out else None

    async def resolve(self, vni: int, name: str) -> set[str]:
        space = await self.card(vni, host(10).mac)
        await shell(f"ip -n {space} address replace 10.9.0.10/24 dev eth0")
        out = await shell(f"ip netns exec {space} busybox nslookup -type=a {name} 10.9.0.1 || true")
        answer = out.partition("Name:")[2]
        return {w[1] for line in answer.splitlines() if (w := line.split())[:1] == ["Address:"]}

    async def interruptions(self, network: ResourceId) -> object:
        return json.loads((self.folder / network / "record.json").read_text())["pid"]


@pytest.mark.root
class TestDnsmasq(DhcpSuite):
    @pytest.fixture
    def ground(self) -> Iterator[NodeGround]:
        with node_ground() as ground:
            yield ground

    @pytest.fixture
    async def driver(self, ground: NodeGround, tmp_path: Path) -> AsyncIterator[Dnsmasq]:
        gateway = NetnsGateway(DriverContext("n1", tmp_path, tmp_path), NoConfig())
        for vni in (100, 200):
            await ground.segment(vni)
            await gateway.ensure_leg(leg(vni, addresses=("10.9.0.1/24", "fd00:9::1/64")))
        driver = Dnsmasq(DriverContext("n1", tmp_path, tmp_path), DnsmasqConfig())
        await driver.open()
        yield driver
        for vni in (100, 200):
            await driver.remove(served(vni).network)
        await driver.close()

    @pytest.fixture
    def clients(self, ground: NodeGround, tmp_path: Path) -> RealClients:
        return RealClients(ground, tmp_path)

    async def test_a_new_instance_finds_the_server(
        self, driver: Dnsmasq, clients: RealClients, tmp_path: Path
    ) -> None:
        """It outlives the service, which takes it over rather than starting a second one."""
        await driver.ensure(served())
        before = await clients.interruptions(served().network)
        again = Dnsmasq(DriverContext("n1", tmp_path, tmp_path), DnsmasqConfig())
        await again.ensure(served(hosts=(host(12),)))
        assert await clients.interruptions(served().network) == before
        assert await clients.lease(100, host(12).mac) is not None

    async def test_a_server_that_died_is_replaced(
        self, driver: Dnsmasq, clients: RealClients
    ) -> None:
        """It is not told as served, and asking again brings it back."""
        await driver.ensure(served())
        pid = await clients.interruptions(served().network)
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while await driver.served():
            assert time.monotonic() < deadline
        assert await driver.served() == ()
        await driver.ensure(served())
        assert await driver.served() == (served().network,)

    async def test_routers_are_advertised(self, driver: Dnsmasq, clients: RealClients) -> None:
        """A guest finds its IPv6 router and the MTU by itself."""
        await driver.ensure(served())
        space = await clients.card(100, host(10).mac)
        deadline = time.monotonic() + 15
        routes = ""
        while "default" not in routes and time.monotonic() < deadline:
            await shell(f"ip -n {space} link set eth0 down; ip -n {space} link set eth0 up")
            for _ in range(30):
                routes = await shell(f"ip -n {space} -6 route show")
                if "default" in routes:
                    break
                await asyncio.sleep(0.1)
        assert "default via fe80::" in routes
        assert "fd00:9::/64" in routes


def test_the_command_line_has_both_families() -> None:
    """RA and DHCPv6 only where there is IPv6."""
    v4 = server_arguments(served(subnets=("10.9.0.0/24",)), Path("/x"), ("192.0.2.53",), "nobody")
    assert not any("ra" in a.split("=")[0].split("-") for a in v4)
    assert "--server=192.0.2.53" in v4
    both = server_arguments(served(), Path("/x"), (), "nobody")
    assert "--enable-ra" in both
    assert "--dhcp-range=set:v6,fd00:9::,static,64,12h" in both


def test_a_host_line_names_both_addresses() -> None:
    assert host_line(host(10)) == "02:00:00:00:00:0a,10.9.0.10,[fd00:9::a],guest-10,12h"
    assert host_line(host(10), ("02:99",)).startswith("02:00:00:00:00:0a,02:99,10.9.0.10,")


def test_who_had_an_address_is_named_unless_it_has_another_now() -> None:
    heir = host(12, addresses=("10.9.0.10",))
    given = given_now(given_now({}, (host(10),)), (heir,))
    assert given == {"10.9.0.10": (host(10).mac, heir.mac)}
    assert former(given, (heir, host(11))) == {heir.mac: (host(10).mac,), host(11).mac: ()}
    moved = host(10, addresses=("10.9.0.77",))
    assert former(given, (heir, moved)) is None
    for number in range(100, 101 + FORMER_MAX):
        given = given_now(given, (host(number, addresses=("10.9.0.10",)),))
    assert former(given, (heir,)) is None


def test_resolvers_on_loopback_are_left_out(tmp_path: Path) -> None:
    stub, real = tmp_path / "stub", tmp_path / "real"
    stub.write_text("nameserver 127.0.0.53\n")
    real.write_text("# x\nnameserver 127.0.0.1\nnameserver 192.0.2.7\nsearch x\n")
    assert node_resolvers((tmp_path / "none", stub, real)) == ("192.0.2.7",)
    assert node_resolvers((stub,)) == ()
