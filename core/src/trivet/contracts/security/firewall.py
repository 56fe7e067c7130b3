"""The law for firewall backends: the rules at the ports of one node.

A port of Trivet's that no ruleset names passes nothing: the backend stands closed before the
first port is plugged, and while the security service is away.
"""

from __future__ import annotations

from datetime import datetime
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Protocol, runtime_checkable

from pydantic import AfterValidator, Field

from trivet.contracts.driver import Driver
from trivet.contracts.model import Model, Name, ResourceId
from trivet.contracts.network.port import MAC_PATTERN
from trivet.contracts.security.group import Action, Direction, Rule
from trivet.contracts.security.group import Protocol as Proto


def link_local(mac: str) -> str:
    """The IPv6 link-local address that is made from a MAC (EUI-64)."""
    octets = [int(part, 16) for part in mac.split(":")]
    eui = [octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]]
    return str(IPv6Address(bytes([0xFE, 0x80, 0, 0, 0, 0, 0, 0, *eui])))


DEVICE_PATTERN = r"^[A-Za-z0-9_.-]{1,15}$"


def _bare(address: str) -> str:
    """Raises `ValueError` where that is no address, or names a device beside it."""
    if "%" in address:
        raise ValueError("has a zone")
    ip_address(address)
    return address


Address = Annotated[str, AfterValidator(_bare)]


class Binding(Model):
    """A port on this node: its device, who it may claim to be, which groups it stands
    behind. `addresses` are bare, v4 and v6; `gateways` are all addresses of its network's
    gateway, the link-local one too."""

    port: ResourceId
    project: Name
    generation: int
    device: str = Field(pattern=DEVICE_PATTERN)
    mac: str = Field(pattern=MAC_PATTERN)
    addresses: tuple[Address, ...]
    vni: int = Field(ge=0)
    gateways: tuple[Address, ...] = ()
    security_groups: tuple[Name, ...] = ()


class GroupRules(Model):
    """A group's rules in the order in which they are tried."""

    id: ResourceId
    project: str
    name: str
    generation: int
    rules: tuple[Rule, ...]


class AddressList(Model):
    """The networks that a project's rules mean by `name` (`group:web`, `set:bad`) now."""

    project: str
    name: str
    addresses: tuple[str, ...]


class Ruleset(Model):
    """All that the firewall of a node must hold: every port, each group one of them stands
    behind, and each list that a rule names. A port's groups are tried as one list, in order
    of priority; `contracts.security.evaluate` says what they decide."""

    ports: tuple[Binding, ...] = ()
    groups: tuple[GroupRules, ...] = ()
    lists: tuple[AddressList, ...] = ()


class PortCounters(Model):
    """Packets and bytes since the rules of the port were last replaced."""

    port: ResourceId
    spoofed_packets: int = 0
    denied_in_packets: int = 0
    denied_out_packets: int = 0
    allowed_in_packets: int = 0
    allowed_out_packets: int = 0


class RuleHits(Model):
    """What a rule decided at this node's ports since it is in force. `rule` is the
    `NamedRule.key`. Rules that a backend keeps no count of are not named."""

    group: ResourceId
    rule: str
    packets: int
    bytes: int


class LogEntry(Model):
    """A packet that a rule with `log` decided on. At most a few a second are told."""

    at: datetime
    node: str
    port: ResourceId
    group: ResourceId
    rule: str
    direction: Direction
    action: Action
    protocol: str
    source: str
    destination: str
    source_port: int | None = None
    destination_port: int | None = None


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

    IPv6 link-local addresses are a guest's own to choose (stable privacy), from its own MAC:
    it can't take those that are made from the MACs of its network's other ports here, nor the
    gateway's. That a guest elsewhere uses the same one is not seen: duplicate address detection
    is between guests.
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

    async def hits(self) -> tuple[RuleHits, ...]:
        """How often rules decided."""
        ...

    async def logged(self) -> tuple[LogEntry, ...]:
        """What rules with `log` told since the last call, oldest first; a bounded number is
        kept between two calls."""
        ...

    async def clear(self) -> None:
        """Remove all rules of Trivet's from this node (for purge, not in service)."""
        ...


@runtime_checkable
class Watchful(Protocol):
    """A backend that notices at once when somebody else changes its rules."""

    async def disturbed(self) -> str:
        """Wait until somebody may have changed them; who, as far as it is known."""
        ...


class Connection(Model):
    """A connection that is under way at a port here, as it was opened: `remote` is the other
    side's address, `port` the one that was called (0 where there is none)."""

    at: ResourceId
    direction: Direction
    protocol: Proto
    remote: str
    port: int


@runtime_checkable
class Tracking(Protocol):
    """A backend that can tell which connections are under way."""

    async def connections(self) -> tuple[Connection, ...]:
        """Those at this node's ports, a bounded number of them."""
        ...
