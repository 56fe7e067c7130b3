"""What a node has to carry, from the ports that are wanted there.

A network is on a node exactly while a port of it is: its segment, its gateway's leg, its DHCP.
The other nodes of the network, and the guests there, are named where this node has a tunnel
address. This says what is wanted and nothing of what is there: `node_plan` compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_interface

from trivet.contracts.network.gateway_driver import DhcpHost, DhcpNetwork, GatewayLeg
from trivet.contracts.network.network import Network
from trivet.contracts.network.port import Port
from trivet.contracts.network.switch import Plug, RemoteStation, Segment
from trivet.contracts.security.firewall import Binding, link_local


@dataclass(frozen=True)
class NodeView:
    """What a node knows: itself, all ports and networks that may concern it, tunnel addresses
    of all nodes. `namespaces`: where the gateway driver puts each network's gateway."""

    node: str
    prefix: str
    ports: tuple[Port, ...]
    networks: Mapping[str, Network]
    vteps: Mapping[str, str] = field(default_factory=dict)
    namespaces: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """All that the node is to carry; `plugs` are as they are once their firewall stands."""

    segments: tuple[Segment, ...] = ()
    legs: tuple[GatewayLeg, ...] = ()
    dhcp: tuple[DhcpNetwork, ...] = ()
    plugs: tuple[Plug, ...] = ()
    stations: Mapping[int, tuple[RemoteStation, ...]] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()


def device_of(prefix: str, port_id: str) -> str:
    """The tap's name: the prefix, 'p', and the last ten digits of the id."""
    return f"{prefix}p{port_id[-10:]}"


def belongs(port: Port, node: str) -> bool:
    """Whether the port is wanted on the node."""
    return port.spec.node == node and port.meta.deleting_at is None


def wanted(view: NodeView) -> Wanted:
    """What the node of `view` is to carry."""
    here = sorted(
        (p for p in view.ports if belongs(p, view.node) and p.status.network_id in view.networks),
        key=lambda p: p.meta.id,
    )
    ids = sorted({p.status.network_id for p in here if p.status.network_id})
    networks = [view.networks[i] for i in ids]
    vtep = view.vteps.get(view.node)
    away = {n.meta.id: _away(view, n) if vtep else () for n in networks}
    return Wanted(
        segments=tuple(_segment(n, vtep, away[n.meta.id], view.vteps) for n in networks),
        legs=tuple(_leg(n) for n in networks),
        dhcp=tuple(_dhcp(view, n, here) for n in networks if n.spec.dhcp),
        plugs=tuple(_plug(view, p) for p in here),
        stations={
            _vni(n): tuple(_station(p, view.vteps) for p in away[n.meta.id]) for n in networks
        }
        if vtep
        else {},
        bindings=tuple(_binding(view, p) for p in here),
    )


def _away(view: NodeView, network: Network) -> tuple[Port, ...]:
    """The network's ports on other nodes that have a tunnel address."""
    return tuple(
        p
        for p in sorted(view.ports, key=lambda p: p.meta.id)
        if p.status.network_id == network.meta.id
        and p.spec.node not in (None, view.node)
        and p.spec.node in view.vteps
        and p.meta.deleting_at is None
    )


def _vni(network: Network) -> int:
    assert network.status.vni is not None, f"{network!r} was admitted without a VNI"
    return network.status.vni


def _segment(
    network: Network, vtep: str | None, away: Iterable[Port], vteps: Mapping[str, str]
) -> Segment:
    return Segment(
        network=network.meta.id,
        vni=_vni(network),
        mtu=network.spec.mtu,
        generation=network.meta.generation,
        local_vtep=vtep,
        peers=tuple(sorted({vteps[p.spec.node] for p in away if p.spec.node})),
    )


def _leg(network: Network) -> GatewayLeg:
    return GatewayLeg(
        network=network.meta.id,
        vni=_vni(network),
        mac=network.status.gateway_mac or "",
        addresses=network.status.gateways,
        mtu=network.spec.mtu,
        external=network.spec.external,
        generation=network.meta.generation,
    )


def _dhcp(view: NodeView, network: Network, here: Iterable[Port]) -> DhcpNetwork:
    return DhcpNetwork(
        network=network.meta.id,
        generation=network.meta.generation,
        namespace=view.namespaces.get(network.meta.id, ""),
        subnets=network.spec.subnets,
        gateways=tuple(str(ip_interface(g).ip) for g in network.status.gateways),
        mtu=network.spec.mtu,
        upstream=network.spec.dns,
        hosts=tuple(
            DhcpHost(
                mac=p.status.mac or "",
                addresses=p.status.addresses,
                hostname=p.spec.hostname or p.meta.name,
            )
            for p in here
            if p.status.network_id == network.meta.id
        ),
    )


def _plug(view: NodeView, port: Port) -> Plug:
    network = view.networks[port.status.network_id or ""]
    return Plug(
        port=port.meta.id,
        vni=_vni(network),
        device=device_of(view.prefix, port.meta.id),
        mac=port.status.mac or "",
        addresses=port.status.addresses,
        mtu=network.spec.mtu,
        generation=port.meta.generation,
        up=True,
        qos=port.spec.qos,
    )


def _station(port: Port, vteps: Mapping[str, str]) -> RemoteStation:
    return RemoteStation(
        mac=port.status.mac or "",
        vtep=vteps[port.spec.node or ""],
        addresses=port.status.addresses,
    )


def _binding(view: NodeView, port: Port) -> Binding:
    network = view.networks[port.status.network_id or ""]
    return Binding(
        port=port.meta.id,
        project=port.meta.project or "",
        generation=port.meta.generation,
        device=device_of(view.prefix, port.meta.id),
        mac=port.status.mac or "",
        addresses=port.status.addresses,
        vni=_vni(network),
        gateways=_gateway_addresses(network),
        security_groups=port.spec.security_groups,
    )


def _gateway_addresses(network: Network) -> tuple[str, ...]:
    """All addresses of the gateway, with the link-local one that its MAC gives it."""
    addresses = tuple(str(ip_interface(g).ip) for g in network.status.gateways)
    mac = network.status.gateway_mac
    return (*addresses, link_local(mac)) if mac and any(":" in a for a in addresses) else addresses
