"""A fake gateway: legs in memory, asked whether an address would answer.

Stricter than the real one: a generation never goes backwards.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_interface
from typing import ClassVar

from trivet.contracts.driver import DriverContext
from trivet.contracts.errors import CONFLICT, NOT_FOUND, Refused
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import ResourceId
from trivet.contracts.network.gateway_driver import GatewayLeg
from trivet.testing.fakes.world import DamagedWorld, FakeNodeDriver, FaultConfig, Worlds


class GatewayWorld(DamagedWorld):
    """The gateways of a node. `segments`: the VNIs that are there (None: all are); `guests`:
    who is plugged in, as (vni, address); `outside`: addresses that answer beyond the node."""

    def __init__(self) -> None:
        super().__init__()
        self.legs: dict[ResourceId, GatewayLeg] = {}
        self.segments: set[int] | None = None
        self.guests: set[tuple[int, str]] = set()
        self.outside: set[str] = set()
        self.metadata: dict[ResourceId, int] = {}

    def answers(self, vni: int, address: str) -> bool:
        """Whether `address` answers a guest on segment `vni`."""
        wanted = ip_address(address)
        if any(v == vni and ip_address(a) == wanted for v, a in self.guests):
            return True
        found = next((g for g in self.legs.values() if g.vni == vni), None)
        if found is None or found.network in self.wrong:
            return False
        own = any(ip_interface(a).ip == wanted for a in found.addresses)
        return own or (found.external and address in self.outside)


class FakeGateway(FakeNodeDriver):
    """Gateways in memory."""

    name: ClassVar[str] = "fake-gateway"
    worlds: ClassVar[Worlds[GatewayWorld]] = Worlds(GatewayWorld)

    def __init__(self, context: DriverContext, config: FaultConfig) -> None:
        super().__init__(context, config)
        self.damaged = self.world = self.worlds.at(context.state_dir)

    async def ensure_leg(self, leg: GatewayLeg) -> None:
        """Make the gateway as asked."""
        self.faults.check("ensure_leg")
        if self.world.segments is not None and leg.vni not in self.world.segments:
            raise Refused(NOT_FOUND, f"segment {leg.vni} is not on this node")
        present = self.world.legs.get(leg.network)
        if present and leg.generation < present.generation:
            raise Refused(CONFLICT, f"{leg.network} is at generation {present.generation}")
        self.world.legs[leg.network] = leg
        self.world.wrong.pop(leg.network, None)

    async def remove_leg(self, network: ResourceId) -> None:
        """Remove the gateway."""
        self.faults.check("remove_leg")
        self.world.legs.pop(network, None)
        self.world.wrong.pop(network, None)

    async def legs(self) -> tuple[GatewayLeg, ...]:
        """What is there, in order of network."""
        self.faults.check("legs")
        return tuple(self.world.legs[network] for network in sorted(self.world.legs))

    async def ping(self, network: ResourceId, address: str, timeout_s: float) -> bool:
        """Whether `address` would answer the gateway."""
        self.faults.check("ping")
        leg = self.world.legs.get(network)
        if leg is None:
            raise Refused(NOT_FOUND, f"{network} has no gateway on this node")
        return self.world.answers(leg.vni, address)

    async def metadata_socket(self, network: ResourceId) -> int:
        """One on this machine's loopback; the world knows its port."""
        self.faults.check("metadata_socket")
        if network not in self.world.legs:
            raise Refused(NOT_FOUND, f"{network} has no gateway on this node")
        listening = socket.create_server(("127.0.0.1", 0))
        self.world.metadata[network] = listening.getsockname()[1]
        return listening.detach()

    def namespace(self, network: ResourceId) -> str:
        """A name, of nothing."""
        return f"{self.prefix}-gw-{network[-10:]}"


@hookimpl
def trivet_gateway_drivers() -> list[type[FakeGateway]]:
    """Register the fake."""
    return [FakeGateway]
