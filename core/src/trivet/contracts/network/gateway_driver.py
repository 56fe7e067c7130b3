"""The laws for gateways, and for DHCP and DNS: what serves a network on a node.

The gateway answers at the same addresses and MAC on every node, in a network namespace of its
own, routes between the subnets of a project's networks only where asked, and translates
addresses towards the outside for networks that are `external`.
"""

from __future__ import annotations

from typing import Protocol

from trivet.contracts.driver import Driver
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.network.drift import Drift


class GatewayLeg(Model):
    """A network's gateway on this node: `addresses` with prefix length, the same MAC on all
    nodes. `external`: translated towards the outside."""

    network: ResourceId
    vni: int
    mac: str
    addresses: tuple[str, ...]
    mtu: int
    external: bool
    generation: int


class GatewayDriver(Driver, Protocol):
    """Serves gateways on this node; one leg a network, apart from each other."""

    async def ensure_leg(self, leg: GatewayLeg) -> None:
        """Make the gateway of one network; its segment is there."""
        ...

    async def remove_leg(self, network: ResourceId) -> None:
        """Remove the gateway of one network."""
        ...

    async def legs(self) -> tuple[GatewayLeg, ...]:
        """What is there, read back from its records; generation 0: not made to the end."""
        ...

    async def drift(self) -> tuple[Drift, ...]:
        """What of it is not as it was made, beyond what `legs` shows, by network."""
        ...

    async def ping(self, network: ResourceId, address: str, timeout_s: float) -> bool:
        """Whether `address` answers an echo request from the network's gateway."""
        ...

    async def metadata_socket(self, network: ResourceId) -> int:
        """A TCP socket (its file descriptor) that listens where guests of that network ask
        for metadata: 169.254.169.254, port 80. The caller's to close; lost with its gateway."""
        ...

    def namespace(self, network: ResourceId) -> str:
        """The network namespace in which that network's gateway lives (DHCP runs there)."""
        ...


class DhcpHost(Model):
    """A guest's fixed lease and its name. `leased` false: it lives on another node, where it
    gets its lease; here its name alone is known."""

    mac: str
    addresses: tuple[str, ...]
    hostname: str
    leased: bool = True


class DhcpNetwork(Model):
    """What DHCP and DNS serve on one network. `namespace` is where; `upstream` are the DNS
    servers asked for foreign names (empty: those of the node)."""

    network: ResourceId
    generation: int
    namespace: str
    subnets: tuple[str, ...]
    gateways: tuple[str, ...]
    mtu: int
    upstream: tuple[str, ...] = ()
    domain: str = "trivet.internal"
    hosts: tuple[DhcpHost, ...] = ()


class DhcpDriver(Driver, Protocol):
    """Serves DHCP and DNS on this node's networks; answers known guests only."""

    async def ensure(self, network: DhcpNetwork) -> None:
        """Serve as asked; a change of hosts alone interrupts nothing."""
        ...

    async def remove(self, network: ResourceId) -> None:
        """Stop serving that network."""
        ...

    async def served(self) -> tuple[ResourceId, ...]:
        """The networks that are served now (their server answers)."""
        ...
