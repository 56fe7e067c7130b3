"""Gateways in network namespaces: one a network, at the same addresses and MAC on every node.

A gateway's namespace has one leg in the network's bridge (`net0`) and, where the network leads
outside, one to the node (`ext0`) over a transit subnet of its own. It translates to its transit
address, and the node translates that to its own: guests' addresses never meet the node's
routing, so networks of two projects may overlap. Guests reach what the node reaches, but not
the node itself, not each other's transits, and not link-local services of the node's own
cloud. It decides nothing about ports: the firewall stands there.

Its names are in `gateway_records`; the node's table is `inet <prefix>_nat`.
"""

from __future__ import annotations

import asyncio
import json
import socket
from ipaddress import ip_interface
from typing import ClassVar

from trivet.contracts.driver import DriverContext, NoConfig, Probe
from trivet.contracts.errors import DRIVER_FAILED, NOT_FOUND, Fatal, Refused
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.network.drift import Drift
from trivet.contracts.network.gateway_driver import GatewayLeg
from trivet.plugins.network import echo, gateway_look, gateway_rules, namespaces
from trivet.plugins.network.command import attempt, run, succeeds
from trivet.plugins.network.gateway_inspection import GatewayInspection
from trivet.plugins.network.gateway_records import LegRecord, LegRecords
from trivet.plugins.network.link_watch import RulesWatch
from trivet.plugins.network.netlink import write_sysctl
from trivet.plugins.network.node_forwarding import NodeForwarding
from trivet.plugins.network.transit import Transit, choose

INNER = "net0"
OUTER = "ext0"

INNER_SYSCTLS = {
    "net/ipv4/ip_forward": 1,
    "net/ipv6/conf/all/forwarding": 1,
    "net/ipv6/conf/all/accept_ra": 0,
    "net/ipv6/conf/default/accept_ra": 0,
    # Every node has the same addresses: looking for duplicates would find the others.
    "net/ipv6/conf/all/accept_dad": 0,
    "net/ipv6/conf/default/accept_dad": 0,
    "net/ipv4/conf/all/rp_filter": 1,
    "net/ipv4/conf/default/rp_filter": 1,
    "net/ipv4/conf/all/send_redirects": 0,
    "net/ipv4/conf/default/send_redirects": 0,
}


class NetnsGateway:
    """Gateways of the namespace in which the process runs."""

    name: ClassVar[str] = "netns-gateway"
    Config: ClassVar[type[Model]] = NoConfig

    def __init__(self, context: DriverContext, config: NoConfig) -> None:
        self._prefix = context.prefix
        self._records = LegRecords(context.state_dir, context.prefix)
        self._lock = asyncio.Lock()
        self._node = NodeForwarding(context.state_dir / "forwarding.json", context.prefix)
        self._table = f"{context.prefix}_nat"
        self._inspection = GatewayInspection(self._records, self._table, self._node)
        self._watch = RulesWatch(self._table)

    @classmethod
    async def probe(cls) -> Probe:
        """Needs namespaces and nftables with address translation."""
        nat = "table inet tv_probe {\nchain c {\ntype nat hook postrouting priority 100\n"
        nat += "masquerade\n}\n}\n"
        if not await succeeds("ip", "netns", "list"):
            return Probe(usable=False, reason="network namespaces or the command ip are missing")
        checked = await attempt("nft", "-c", "-f", "-", stdin=nat)
        if checked.code != 0:
            return Probe(usable=False, reason=f"nftables can't translate: {checked.err[:200]}")
        return Probe(usable=True, reason="network namespaces and nftables", score=10)

    async def open(self) -> None:
        """Bring the node's part in line with the legs that are recorded."""
        self._watch.open()
        if self._records.all():
            await self._serve_outside()

    async def close(self) -> None:
        """Listen no more; gateways stay."""
        self._watch.close()

    async def changed(self) -> None:
        """Return when rules of ours at the node were deleted."""
        await self._watch.changed()

    def namespace(self, network: ResourceId) -> str:
        """The network namespace of that network's gateway."""
        return self._records.namespace(network)

    async def ensure_leg(self, leg: GatewayLeg) -> None:
        """Make the gateway as asked; what is right already is not interrupted."""
        async with self._lock:
            bridge = self._records.bridge(leg.vni)
            if not await succeeds("ip", "link", "show", "dev", bridge):
                raise Refused(NOT_FOUND, f"segment {leg.vni} is not on this node")
            transit = await self._transit(leg)
            index = transit.index if transit else None
            self._records.save(LegRecord(leg=leg, transit=index, made=False))
            space = self.namespace(leg.network)
            await namespaces.make(space)
            await namespaces.inside(space, _set_inner_sysctls)
            await self._ensure_inner(leg, space, bridge)
            await self._ensure_outer(leg, space, transit)
            await run("ip", "netns", "exec", space, "nft", "-f", "-", stdin=gateway_rules.inner())
            await self._serve_outside()
            rules = await self._inspection.inner_rules(space)
            done = LegRecord(leg=leg, transit=index, made=True, rules=rules)
            self._records.save(done)

    async def remove_leg(self, network: ResourceId) -> None:
        """Remove the gateway; the node's own part goes with the last one."""
        async with self._lock:
            await namespaces.remove(self.namespace(network))
            for link in (self._records.inward(network), self._records.outward(network)):
                # Links vanish with the namespace of their other end, but not at once.
                await attempt("ip", "link", "delete", link)
            self._records.remove(network)
            await self._serve_outside()

    async def legs(self) -> tuple[GatewayLeg, ...]:
        """The legs that are there; generation 0 where one is not complete."""
        return await self._inspection.legs()

    async def drift(self) -> tuple[Drift, ...]:
        """What is wrong with legs that are complete: links, addresses, routes, rules."""
        return await self._inspection.drift()

    async def metadata_socket(self, network: ResourceId) -> int:
        """A socket (its descriptor) that listens at the metadata address in a gateway."""
        return await namespaces.inside(self.namespace(network), _metadata_socket)

    async def ping(self, network: ResourceId, address: str, timeout_s: float) -> bool:
        """Whether `address` answers an echo request from the network's gateway."""
        space = self.namespace(network)
        return await namespaces.inside(space, lambda: echo.answers(address, timeout_s))

    async def _transit(self, leg: GatewayLeg) -> Transit | None:
        """The transit that the leg has, or one that is free; None for one that has none."""
        if not leg.external:
            return None
        kept = self._records.get(leg.network)
        if kept is not None and kept.transit is not None:
            return Transit(kept.transit)
        taken = {r.transit for r in self._records.all() if r.transit is not None}
        listed = json.loads(await run("ip", "-j", "-4", "route", "show", "table", "all") or "[]")
        busy = [r["dst"] for r in listed if r["dst"][:1].isdigit()]
        transit = choose(leg.network, taken, busy)
        if transit is None:
            raise Fatal(DRIVER_FAILED, "no transit subnet is free on this node")
        return transit

    async def _ensure_inner(self, leg: GatewayLeg, space: str, bridge: str) -> None:
        name = self._records.inward(leg.network)
        if not await _pair_is_whole(name, space, INNER):
            await attempt("ip", "link", "delete", name)
            peer = ("peer", "name", INNER, "netns", space)
            await run("ip", "link", "add", name, "type", "veth", *peer)
            write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 1)
        await run("ip", "link", "set", name, "mtu", str(leg.mtu), "master", bridge, "up")
        await run("bridge", "link", "set", "dev", name, "learning", "off", "flood", "off")
        await run("bridge", "fdb", "replace", leg.mac, "dev", name, "master", "static")
        setup = f"link set lo up\nlink set {INNER} address {leg.mac} mtu {leg.mtu}\n"
        # What tells a gateway whose record is lost from somebody else's namespace.
        setup += f"link set {INNER} alias {leg.network}\n"
        setup += f"address replace {gateway_look.METADATA}/32 dev lo\n"
        await run("ip", "-n", space, "-batch", "-", stdin=setup + f"link set {INNER} up\n")
        await _set_addresses(space, INNER, leg.addresses)

    async def _ensure_outer(self, leg: GatewayLeg, space: str, transit: Transit | None) -> None:
        name = self._records.outward(leg.network)
        if transit is None:
            await attempt("ip", "link", "delete", name)
            return
        if not await _pair_is_whole(name, space, OUTER):
            await attempt("ip", "link", "delete", name)
            peer = ("peer", "name", OUTER, "netns", space)
            await run("ip", "link", "add", name, "type", "veth", *peer)
            write_sysctl(f"net/ipv6/conf/{name}/accept_ra", 0)
        here = transit.addresses(node=True)
        commands = [f"address replace {a}{_nodad(a)} dev {name}" for a in here]
        await run("ip", "-batch", "-", stdin="\n".join([f"link set {name} up", *commands, ""]))
        await run("ip", "-n", space, "link", "set", OUTER, "up")
        await _set_addresses(space, OUTER, transit.addresses(node=False))
        routes = [f"route replace default via {ip_interface(a).ip}" for a in here]
        await run("ip", "-n", space, "-batch", "-", stdin="\n".join([*routes, ""]))

    async def _serve_outside(self) -> None:
        """The node's rules and forwarding for the legs that are recorded now."""
        external = [r for r in self._records.all() if r.transit is not None]
        if not external:
            await attempt("nft", "delete", "table", "inet", self._table)
            await self._node.turn_back()
            return
        transits = [Transit(r.transit) for r in external if r.transit is not None]
        await run("nft", "-f", "-", stdin=gateway_rules.node(self._prefix, transits))
        v6 = any(":" in a for r in external for a in r.leg.addresses)
        routed = v6 and bool((await run("ip", "-6", "route", "show", "default")).strip())
        await self._node.turn_on(v6=routed)
        self._inspection.node_rules = await self._inspection.listed_node_rules()


def _metadata_socket() -> int:
    return socket.create_server((gateway_look.METADATA, 80), backlog=64).detach()


def _set_inner_sysctls() -> None:
    for key, value in INNER_SYSCTLS.items():
        write_sysctl(key, value)


async def _pair_is_whole(name: str, space: str, inner: str) -> bool:
    return await succeeds("ip", "link", "show", "dev", name) and await succeeds(
        "ip", "-n", space, "link", "show", "dev", inner
    )


def _nodad(address: str) -> str:
    return " nodad" if ":" in address else ""


async def _set_addresses(space: str, link: str, wanted: tuple[str, ...]) -> None:
    """Make exactly these the global addresses of a link inside the namespace."""
    listed = await run("ip", "-n", space, "-j", "address", "show", "dev", link)
    present = gateway_look.cards(listed)[link].addresses
    asked = {str(ip_interface(a)) for a in wanted}
    commands = [f"address del {a} dev {link}" for a in sorted(present - asked)]
    commands += [f"address replace {a}{_nodad(a)} dev {link}" for a in sorted(asked)]
    await run("ip", "-n", space, "-batch", "-", stdin="\n".join([*commands, ""]))


@hookimpl
def trivet_gateway_drivers() -> list[type[NetnsGateway]]:
    """Register the driver."""
    return [NetnsGateway]
