"""A fake DHCP server: asked which lease a guest would get, and what a name means."""

from __future__ import annotations

from ipaddress import ip_address
from typing import ClassVar

from trivet.contracts.driver import DriverContext
from trivet.contracts.errors import CONFLICT, INVALID, NOT_FOUND, Refused
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import ResourceId
from trivet.contracts.network.gateway_driver import DhcpHost, DhcpNetwork
from trivet.testing.fakes.world import DamagedWorld, FakeNodeDriver, FaultConfig, Worlds


class DhcpWorld(DamagedWorld):
    """The servers of a node. `spaces`: the namespaces that are there (None: all are);
    `starts`: how often a server was started, which interrupts."""

    def __init__(self) -> None:
        super().__init__()
        self.networks: dict[ResourceId, DhcpNetwork] = {}
        self.spaces: set[str] | None = None
        self.starts: dict[ResourceId, int] = {}

    def lease(self, network: ResourceId, mac: str) -> DhcpHost | None:
        """What the guest with that MAC is told; None: nobody answers it."""
        found = self.networks.get(network)
        return next((h for h in found.hosts if h.mac == mac and h.leased), None) if found else None

    def resolve(self, network: ResourceId, name: str) -> set[str]:
        """The addresses of a guest's name."""
        found = self.networks.get(network)
        if found is None:
            return set()
        bare = name.removesuffix(f".{found.domain}")
        return {a for h in found.hosts if h.hostname == bare for a in h.addresses}


class FakeDhcp(FakeNodeDriver):
    """DHCP in memory; refuses two guests with one MAC or one address."""

    name: ClassVar[str] = "fake-dhcp"
    worlds: ClassVar[Worlds[DhcpWorld]] = Worlds(DhcpWorld)

    def __init__(self, context: DriverContext, config: FaultConfig) -> None:
        super().__init__(context, config)
        self.damaged = self.world = self.worlds.at(context.state_dir)

    async def ensure(self, network: DhcpNetwork) -> None:
        """Serve as asked."""
        self.faults.check("ensure")
        if self.world.spaces is not None and network.namespace not in self.world.spaces:
            raise Refused(NOT_FOUND, f"there is no network namespace {network.namespace}")
        macs = [h.mac for h in network.hosts]
        addresses = [ip_address(a) for h in network.hosts for a in h.addresses]
        if len(set(macs)) != len(macs) or len(set(addresses)) != len(addresses):
            raise Refused(INVALID, "two guests have one MAC or one address")
        present = self.world.networks.get(network.network)
        if present and network.generation < present.generation:
            raise Refused(CONFLICT, f"{network.network} is at generation {present.generation}")
        still = {"hosts": (), "generation": 0}
        if present is None or present.model_copy(update=still) != network.model_copy(update=still):
            self.world.starts[network.network] = self.world.starts.get(network.network, 0) + 1
        self.world.networks[network.network] = network

    async def remove(self, network: ResourceId) -> None:
        """Stop serving that network."""
        self.faults.check("remove")
        self.world.networks.pop(network, None)

    async def served(self) -> tuple[ResourceId, ...]:
        """The networks that are served."""
        self.faults.check("served")
        return tuple(sorted(self.world.networks))


@hookimpl
def trivet_dhcp_drivers() -> list[type[FakeDhcp]]:
    """Register the fake."""
    return [FakeDhcp]
