"""A fake gateway: legs in memory, asked whether an address would answer.

Stricter than the real one: a generation never goes backwards.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_interface
from typing import ClassVar

from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import CONFLICT, NOT_FOUND, Refused
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.network.gateway_driver import GatewayLeg
from trivet.testing.fakes.world import FaultConfig, Faults, Worlds


class GatewayWorld:
    """The gateways of a node. `segments`: the VNIs that are there (None: all are); `guests`:
    who is plugged in, as (vni, address); `outside`: addresses that answer beyond the node."""

    def __init__(self) -> None:
        self.legs: dict[ResourceId, GatewayLeg] = {}
        self.segments: set[int] | None = None
        self.guests: set[tuple[int, str]] = set()
        self.outside: set[str] = set()

    def answers(self, vni: int, address: str) -> bool:
        """Whether `address` answers a guest on segment `vni`."""
        wanted = ip_address(address)
        if any(v == vni and ip_address(a) == wanted for v, a in self.guests):
            return True
        found = next((g for g in self.legs.values() if g.vni == vni), None)
        if found is None:
            return False
        own = any(ip_interface(a).ip == wanted for a in found.addresses)
        return own or (found.external and address in self.outside)


class FakeGateway:
    """Gateways in memory."""

    name: ClassVar[str] = "fake-gateway"
    Config: ClassVar[type[Model]] = FaultConfig
    worlds: ClassVar[Worlds[GatewayWorld]] = Worlds(GatewayWorld)

    def __init__(self, context: DriverContext, config: FaultConfig) -> None:
        self.world = self.worlds.at(context.state_dir)
        self.faults = Faults(config)
        self._prefix = context.prefix

    @classmethod
    async def probe(cls) -> Probe:
        """Works anywhere, and is never taken by `auto`."""
        return Probe(usable=True, reason="a fake, for tests", score=-1)

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close; the world stays."""

    async def ensure_leg(self, leg: GatewayLeg) -> None:
        """Make the gateway as asked."""
        self.faults.check("ensure_leg")
        if self.world.segments is not None and leg.vni not in self.world.segments:
            raise Refused(NOT_FOUND, f"segment {leg.vni} is not on this node")
        present = self.world.legs.get(leg.network)
        if present and leg.generation < present.generation:
            raise Refused(CONFLICT, f"{leg.network} is at generation {present.generation}")
        self.world.legs[leg.network] = leg

    async def remove_leg(self, network: ResourceId) -> None:
        """Remove the gateway."""
        self.faults.check("remove_leg")
        self.world.legs.pop(network, None)

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

    def namespace(self, network: ResourceId) -> str:
        """A name, of nothing."""
        return f"{self._prefix}-gw-{network[-10:]}"


@hookimpl
def trivet_gateway_drivers() -> list[type[FakeGateway]]:
    """Register the fake."""
    return [FakeGateway]
