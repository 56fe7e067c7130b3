"""Network: one logical switch over all nodes, with its subnets and its services.

Gateway, DHCP and DNS answer at the first usable address of each subnet, on every node.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from trivet.contracts.event import EventType
from trivet.contracts.model import Model
from trivet.contracts.resource import Kind, Resource, Scope, Status


def _subnet(text: str) -> str:
    net = ip_network(text)
    if net.num_addresses < 8:
        raise ValueError("the subnet has room for fewer than 8 addresses")
    if net.is_loopback or net.is_multicast or net.is_link_local:
        raise ValueError("loopback, multicast and link-local subnets are not for guests")
    return str(net)


Subnet = Annotated[str, Field(max_length=64), AfterValidator(_subnet)]


class NetworkSpec(Model):
    """`subnets` at most one IPv4 and one IPv6 (CIDR). `external`: guests reach the world
    beyond the cluster, by address translation, through their node. `vni` else chosen."""

    subnets: tuple[Subnet, ...] = Field(min_length=1, max_length=2)
    vni: int | None = Field(default=None, ge=1, le=16777215)
    dhcp: bool = True
    dns: tuple[str, ...] = Field(default=(), max_length=4)
    mtu: int = Field(default=1450, ge=1280, le=9000)
    external: bool = True

    @model_validator(mode="after")
    def _one_each(self) -> NetworkSpec:
        if len({ip_network(s).version for s in self.subnets}) != len(self.subnets):
            raise ValueError("at most one IPv4 and one IPv6 subnet")
        return self


class NetworkStatus(Status):
    """`gateways` are the addresses at which the network's gateway answers, with prefix.
    `repairs`: how often its part on a node was found changed behind Trivet's back, and mended;
    the condition `Intact` says what was wrong last."""

    vni: int | None = None
    gateways: tuple[str, ...] = ()
    gateway_mac: str | None = None
    ports: int = 0
    repairs: int = 0


class Network(Resource[NetworkSpec, NetworkStatus]):
    """A logical switch with its subnets."""

    kind: str = "Network"


NETWORK_REPAIRED = EventType("network", "network", "repaired")


def _network_events(before: Network | None, after: Network | None) -> tuple[EventType, ...]:
    mended = before and after and after.status.repairs > before.status.repairs
    return (NETWORK_REPAIRED,) if mended else ()


NETWORK = Kind(
    Network,
    "network",
    "networks",
    "network",
    Scope.PROJECT,
    "A virtual network",
    extra_events=_network_events,
    extra_event_types=(NETWORK_REPAIRED,),
    takes=lambda network: {"networks": 1},
)
