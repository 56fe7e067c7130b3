"""The cluster that a node belongs to: its members, and what follows from them for one node.

Every node has the same list, beside its own name, in `cluster.json`; a node without one is a
cluster of its own, whose bus nobody else reaches. A node makes its keys itself, and only their
public halves go into the list, so that no secret travels and a member that is taken from the
list is shut out. Where a node's bus is, whom it lets in, and how many copies there are of every
stream follows from the list alone.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from trivet.contracts.errors import NOT_FOUND, Refused
from trivet.contracts.model import Model, Name
from trivet.host.layout import Layout
from trivet.host.whole_files import write_whole

BUS_PORT = 4222
ROUTE_PORT = 6222
COPIES_MAX = 3


class Member(Model):
    """A node of a cluster. `address` is its own in the management network, `storage_address` in
    the network of replicas and tunnels (None: the same); both are IPv4 or IPv6 addresses.
    `public_keys`: the nkeys of its services by identity. `witness`: it only votes."""

    name: Name
    address: str
    storage_address: str | None = None
    witness: bool = False
    public_keys: dict[str, str] = {}


class Cluster(Model):
    """All members, in an order that is the same on all nodes."""

    name: Name
    members: tuple[Member, ...] = Field(min_length=1)

    def member(self, name: str) -> Member:
        """The member of that name. Raises `Refused(NOT_FOUND)`."""
        for member in self.members:
            if member.name == name:
                return member
        raise Refused(NOT_FOUND, f"{name} is no member of the cluster {self.name}")

    def bus_urls(self, name: str) -> tuple[str, ...]:
        """Where the services of a member find the bus: its own server first, then the rest in
        an order that spreads those who lost theirs."""
        at = self.members.index(self.member(name))
        ordered = (*self.members[at:], *self.members[:at])
        return tuple(f"tls://{_host(m.address)}:{BUS_PORT}" for m in ordered)

    def routes(self) -> tuple[str, ...]:
        """Where servers find each other."""
        return tuple(f"nats-route://{_host(m.address)}:{ROUTE_PORT}" for m in self.members)

    @property
    def copies(self) -> int:
        """Copies of every stream: one a member, up to three."""
        return min(COPIES_MAX, len(self.members))


class Membership(Model):
    """What a node knows: the cluster, and which member it is itself."""

    node: Name
    cluster: Cluster

    @property
    def me(self) -> Member:
        """This node's own entry."""
        return self.cluster.member(self.node)

    @property
    def others(self) -> tuple[Member, ...]:
        """All other members."""
        return tuple(m for m in self.cluster.members if m.name != self.node)


def file_of(layout: Layout) -> Path:
    """Where a node keeps its membership."""
    return layout.etc / "cluster.json"


def membership(layout: Layout) -> Membership | None:
    """The node's membership; None: it is a cluster of its own."""
    file = file_of(layout)
    return Membership.model_validate_json(file.read_text()) if file.exists() else None


def keep_membership(layout: Layout, known: Membership) -> None:
    """Write it down, whole or not at all."""
    write_whole(file_of(layout), known.model_dump_json(indent=1).encode() + b"\n", 0o644)


def bus_listen(member: Member) -> str:
    """Where a member's bus listens for clients."""
    return f"{_host(member.address)}:{BUS_PORT}"


def route_listen(member: Member) -> str:
    """Where a member's bus listens for other servers."""
    return f"{_host(member.address)}:{ROUTE_PORT}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
