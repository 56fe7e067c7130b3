"""What a node has to carry, from the ports that are wanted there.

A network is on a node while a port of it is, and for a while after (`lingering`): its segment,
its gateway's leg, its DHCP. One that is being deleted goes with its last port.
The other nodes of the network, and the guests there, are named where this node has a tunnel
address. This says what is wanted and nothing of what is there: `node_plan` compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_interface

from trivet.contracts.model import ResourceId
from trivet.contracts.network.gateway_driver import DhcpHost, DhcpNetwork, GatewayLeg
from trivet.contracts.network.network import Network
from trivet.contracts.network.port import Port
from trivet.contracts.network.switch import Plug, Segment, Station
from trivet.contracts.security.firewall import Binding, link_local


@dataclass(frozen=True)
class Made:
    """What a port comes to on its node, in its network."""

    port: Port
    network: Network
    plug: Plug
    binding: Binding
    host: DhcpHost


@dataclass(frozen=True)
class NodeView:
    """What a node knows: itself, all ports and networks that may concern it, tunnel addresses
    of all nodes. `namespaces`: where the gateway driver puts each network's gateway. `before`: what
    was last made of each port, which holds while it and its network are the same objects. `lately`:
    networks that had ports here not long ago."""

    node: str
    prefix: str
    ports: tuple[Port, ...]
    networks: Mapping[str, Network]
    vteps: Mapping[str, str] = field(default_factory=dict)
    namespaces: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, Made] = field(default_factory=dict)
    lately: frozenset[ResourceId] = frozenset()


@dataclass(frozen=True)
class Wanted:
    """All that the node is to carry; `plugs` are as they are once their firewall stands."""

    segments: tuple[Segment, ...] = ()
    legs: tuple[GatewayLeg, ...] = ()
    dhcp: tuple[DhcpNetwork, ...] = ()
    plugs: tuple[Plug, ...] = ()
    stations: Mapping[int, tuple[Station, ...]] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    made: Mapping[str, Made] = field(default_factory=dict, compare=False, repr=False)


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
    ids = {p.status.network_id for p in here if p.status.network_id}
    ids |= {n for n in view.lately if n in view.networks and not view.networks[n].meta.deleting_at}
    networks = [view.networks[i] for i in sorted(ids)]
    made = _made(view, here)
    vtep = view.vteps.get(view.node)
    away = {n.meta.id: _away(view, n) if vtep else () for n in networks}
    return Wanted(
        segments=tuple(_segment(n, vtep, away[n.meta.id], view.vteps) for n in networks),
        legs=tuple(_leg(n) for n in networks),
        dhcp=tuple(_dhcp(view, n, made.values(), away[n.meta.id]) for n in networks if n.spec.dhcp),
        plugs=tuple(m.plug for m in made.values()),
        stations={_vni(n): _stations(view, n, here, away[n.meta.id]) for n in networks}
        if vtep
        else {},
        bindings=tuple(m.binding for m in made.values()),
        made=made,
    )


def _made(view: NodeView, here: Iterable[Port]) -> dict[str, Made]:
    """What each port comes to; of those that are as they were, what was made before."""
    gateways = {id_: _gateway_addresses(network) for id_, network in view.networks.items()}
    found: dict[str, Made] = {}
    for port in here:
        network_id = port.status.network_id or ""
        network, before = view.networks[network_id], view.before.get(port.meta.id)
        if before is None or before.port is not port or before.network is not network:
            plug = _plug(view, port, network)
            binding = _binding(view, port, network, gateways[network_id])
            before = Made(port, network, plug, binding, _host(port))
        found[port.meta.id] = before
    return found


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


def _dhcp(
    view: NodeView, network: Network, here: Iterable[Made], away: Iterable[Port]
) -> DhcpNetwork:
    """Leases are of the guests here; all guests that can be reached have names."""
    leased = tuple(m.host for m in here if m.network.meta.id == network.meta.id)
    return DhcpNetwork(
        network=network.meta.id,
        generation=network.meta.generation,
        namespace=view.namespaces.get(network.meta.id, ""),
        subnets=network.spec.subnets,
        gateways=tuple(str(ip_interface(g).ip) for g in network.status.gateways),
        mtu=network.spec.mtu,
        upstream=network.spec.dns,
        hosts=leased + tuple(_host(p).model_copy(update={"leased": False}) for p in away),
    )


def _host(port: Port) -> DhcpHost:
    return DhcpHost(
        mac=port.status.mac or "",
        addresses=port.status.addresses,
        hostname=port.spec.hostname or port.meta.name,
    )


def _plug(view: NodeView, port: Port, network: Network) -> Plug:
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


def _stations(
    view: NodeView, network: Network, here: Iterable[Port], away: Iterable[Port]
) -> tuple[Station, ...]:
    """Who is on the network: the gateway, which is on every node, the guests here, and those
    on other nodes."""
    gateway = Station(
        mac=network.status.gateway_mac or "",
        vtep=None,
        addresses=tuple(str(ip_interface(g).ip) for g in network.status.gateways),
    )
    guests = [
        *((p, None) for p in here if p.status.network_id == network.meta.id),
        *((p, view.vteps[p.spec.node or ""]) for p in away),
    ]
    return (
        gateway,
        *(Station(mac=p.status.mac or "", vtep=v, addresses=p.status.addresses) for p, v in guests),
    )


def _binding(view: NodeView, port: Port, network: Network, gateways: tuple[str, ...]) -> Binding:
    return Binding(
        port=port.meta.id,
        project=port.meta.project or "",
        generation=port.meta.generation,
        device=device_of(view.prefix, port.meta.id),
        mac=port.status.mac or "",
        addresses=port.status.addresses,
        vni=_vni(network),
        gateways=gateways,
        security_groups=port.spec.security_groups,
    )


def _gateway_addresses(network: Network) -> tuple[str, ...]:
    """All addresses of the gateway, with the link-local one that its MAC gives it."""
    addresses = tuple(str(ip_interface(g).ip) for g in network.status.gateways)
    mac = network.status.gateway_mac
    return (*addresses, link_local(mac)) if mac and any(":" in a for a in addresses) else addresses
