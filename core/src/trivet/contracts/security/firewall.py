"""The law for firewall backends: the rules at the ports of one node.

A port of Trivet's that no ruleset names passes nothing: the backend stands closed before the
first port is plugged, and while the security service is away.
"""

from __future__ import annotations

from typing import Protocol

from trivet.contracts.driver import Driver
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.security.group import Rule


class Binding(Model):
    """A port on this node: its device, who it may claim to be, which groups it stands
    behind. `addresses` are bare, v4 and v6."""

    port: ResourceId
    project: str
    generation: int
    device: str
    mac: str
    addresses: tuple[str, ...]
    vni: int
    gateways: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()


class GroupRules(Model):
    """A group's rules in the order in which they are tried."""

    id: ResourceId
    project: str
    name: str
    generation: int
    rules: tuple[Rule, ...]


class Ruleset(Model):
    """All that the firewall of a node must hold: every port, and each group one of them
    stands behind. A port's groups are tried as one list, in order of priority."""

    ports: tuple[Binding, ...] = ()
    groups: tuple[GroupRules, ...] = ()


class PortCounters(Model):
    """Packets and bytes since the rules of the port were last replaced."""

    port: ResourceId
    spoofed_packets: int = 0
    denied_in_packets: int = 0
    denied_out_packets: int = 0
    allowed_in_packets: int = 0
    allowed_out_packets: int = 0


class FirewallState(Model):
    """What is in force: the generations of ports and groups, read back from the kernel."""

    ports: dict[ResourceId, int] = {}
    groups: dict[ResourceId, int] = {}
    mode: str = ""


class FirewallBackend(Driver, Protocol):
    """The firewall at this node's ports.

    `apply` is atomic: after it the new ruleset is in force, after its failure the old one is.
    Connections that the new rules still allow are not cut. Guests can't take another's MAC or
    address, answer as DHCP server or router, whatever their rules allow.
    """

    async def apply(self, ruleset: Ruleset) -> None:
        """Put the whole ruleset in force, in one transaction."""
        ...

    async def state(self) -> FirewallState:
        """What is in force now."""
        ...

    async def counters(self) -> tuple[PortCounters, ...]:
        """What was passed and dropped at each port."""
        ...

    async def clear(self) -> None:
        """Remove all rules of Trivet's from this node (for purge, not in service)."""
        ...
