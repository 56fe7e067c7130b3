"""The distributed switch on the Linux bridge: a bridge a network, VXLAN between the nodes.

A bridge for each VNI rather than one with VLAN filtering, since not every kernel has that.
Nothing is learnt: each MAC has a static entry at its tap, or at the tunnel with the node where
it lives, so a guest can neither steal another's traffic nor make the switch flood. The host
itself stays out: it has no address on these bridges, answers no ARP there, and drops whatever
a guest sends to the bridge's own MAC.

What is asked is recorded on the links themselves (their alias), so `state()` needs no file and
a lost control plane can be rebuilt from the node. It decides nothing about what is allowed:
that is the firewall's; only whether bridged frames visit the inet hooks is set here, because
it is an option of the bridge (`filtering`).
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar, Literal

from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import INVALID, NOT_FOUND, Refused
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.network.switch import Plug, RemoteStation, Segment, SwitchState
from trivet.plugins.network.command import run, succeeds
from trivet.plugins.network.netlink import Link, Netlink, write_sysctl
from trivet.plugins.network.tap import make_tap

ZERO_MAC = "00:00:00:00:00:00"
# Entries of the bridge's table (NTF_MASTER, static) and of the tunnel's own (NTF_SELF,
# permanent). A *bridge* entry that is permanent would mean "this host" and swallow frames.
IN_BRIDGE = {"flags": 4, "state": 64}
IN_TUNNEL = {"flags": 2, "state": 192}

NATIVE_CONNTRACK = """table bridge tv_probe {
chain c {
type filter hook forward priority 0; policy accept;
ct state established accept
}
}
"""


class LinuxBridgeConfig(Model):
    """`filtering`: whether bridged frames visit the inet firewall hooks (br_netfilter), or
    the bridge's own suffice (`native`, needs bridge conntrack); `auto` asks the kernel."""

    filtering: Literal["auto", "native", "br_netfilter"] = "auto"
    vxlan_port: int = 4789


class LinuxBridge:
    """Bridges, VXLAN tunnels and persistent taps of the namespace in which it was opened."""

    name: ClassVar[str] = "linux-bridge"
    Config: ClassVar[type[Model]] = LinuxBridgeConfig

    def __init__(self, context: DriverContext, config: LinuxBridgeConfig) -> None:
        self._prefix = context.prefix
        self._config = config
        self._netlink = Netlink()
        self._lock = asyncio.Lock()
        self._inet_hooks = 0

    @classmethod
    async def probe(cls) -> Probe:
        """Needs the tap device, and the right to change links."""
        if not _present("/dev/net/tun"):
            return Probe(usable=False, reason="/dev/net/tun is missing: load the module tun")
        if not await succeeds("ip", "link", "help", expected=255):
            return Probe(usable=False, reason="the command ip (package iproute2) is missing")
        return Probe(usable=True, reason="Linux bridge, VXLAN and tap", score=10)

    async def open(self) -> None:
        """Open the netlink socket and settle where bridged frames are filtered."""
        await self._netlink.open()
        mode = self._config.filtering
        if mode == "auto":
            native = await succeeds("nft", "-c", "-f", "-", stdin=NATIVE_CONNTRACK)
            mode = "native" if native else "br_netfilter"
        self._inet_hooks = int(mode == "br_netfilter")
        if self._inet_hooks:
            await _load_br_netfilter()

    async def close(self) -> None:
        """Close the socket; the links stay."""
        await self._netlink.close()

    async def ensure_segment(self, segment: Segment) -> None:
        """Make the bridge, and the tunnel where there is a local VTEP."""
        async with self._lock:
            name = f"{self._prefix}br{segment.vni}"
            links = await self._links()
            if name not in links:
                await self._make_bridge(name)
                links = await self._links()
            bridge = links[name]
            await self._netlink.set_options(
                name,
                "bridge",
                br_nf_call_iptables=self._inet_hooks,
                br_nf_call_ip6tables=self._inet_hooks,
            )
            await self._netlink.set(bridge.index, mtu=segment.mtu, state="up")
            await self._ensure_tunnel(segment, bridge, links.get(self._tunnel(segment.vni)))
            # The record last: a segment that says so is complete.
            alias = f"{segment.network} {segment.generation}"
            await self._netlink.set(bridge.index, ifalias=alias)

    async def remove_segment(self, vni: int) -> None:
        """Remove the segment's taps, tunnel and bridge."""
        async with self._lock:
            links = await self._links()
            bridge = links.get(f"{self._prefix}br{vni}")
            doomed = [links.get(self._tunnel(vni)), bridge]
            if bridge is not None:
                doomed = [*_taps_on(links, bridge), *doomed]
            for link in doomed:
                if link is not None:
                    await self._netlink.delete(link.index)

    async def ensure_plug(self, plug: Plug) -> None:
        """Make the tap on its bridge; one that is there is changed, never made anew."""
        self._check_device(plug.device)
        async with self._lock:
            links = await self._links()
            bridge = links.get(f"{self._prefix}br{plug.vni}")
            if bridge is None:
                raise Refused(NOT_FOUND, f"segment {plug.vni} is not on this node")
            if plug.device not in links:
                make_tap(plug.device)
                write_sysctl(f"net/ipv6/conf/{plug.device}/disable_ipv6", 1)
                links = await self._links()
            tap = links[plug.device]
            if not plug.up:
                await self._netlink.set(tap.index, state="down")
            await self._netlink.set(tap.index, mtu=plug.mtu)
            if tap.master != bridge.index:
                await self._netlink.set(tap.index, master=bridge.index)
            await self._netlink.set_port(tap.index, learning=0, unicast_flood=0)
            await self._pin_mac(tap, plug.mac)
            await self._netlink.set(tap.index, ifalias=_plug_record(plug))
            if plug.up:
                await self._netlink.set(tap.index, state="up")

    async def remove_plug(self, device: str) -> None:
        """Remove the tap."""
        self._check_device(device)
        async with self._lock:
            link = (await self._links()).get(device)
            if link is not None:
                await self._netlink.delete(link.index)

    async def set_stations(self, vni: int, stations: tuple[RemoteStation, ...]) -> None:
        """Point each remote guest's MAC at its node, and answer ARP for it here."""
        async with self._lock:
            links = await self._links()
            bridge, tunnel = links.get(f"{self._prefix}br{vni}"), links.get(self._tunnel(vni))
            if bridge is None:
                raise Refused(NOT_FOUND, f"segment {vni} is not on this node")
            if tunnel is None and stations:
                raise Refused(INVALID, f"segment {vni} has no tunnel", hint="give local_vtep")
            if tunnel is None:
                return
            await self._set_station_macs(tunnel, {s.mac: s.vtep for s in stations})
            # IPv4 alone: the bridge has no IPv6 (see `_make_bridge`), so ND goes the way of BUM.
            wanted = {a: s.mac for s in stations for a in s.addresses if ":" not in a}
            present = await self._netlink.neighbours(bridge.index)
            for address, mac in present.items():
                if address not in wanted:
                    await self._netlink.change_neighbour("del", bridge.index, address, mac)
            for address, mac in wanted.items():
                if present.get(address) != mac:
                    await self._netlink.change_neighbour("replace", bridge.index, address, mac)

    async def state(self) -> SwitchState:
        """Segments and plugs as their links and the records on them say."""
        links = await self._links()
        bridges = {
            link.index: (int(vni), link)
            for name, link in links.items()
            if link.kind == "bridge" and (vni := name.removeprefix(f"{self._prefix}br")).isdigit()
        }
        segments = [
            await self._read_segment(vni, link, links.get(self._tunnel(vni)))
            for vni, link in bridges.values()
        ]
        plugs = [
            _read_plug(link, bridges[link.master][0] if link.master in bridges else 0)
            for link in links.values()
            if link.kind == "tun"
        ]
        return SwitchState(
            segments=tuple(sorted(segments, key=lambda s: s.vni)),
            plugs=tuple(sorted(plugs, key=lambda p: p.device)),
        )

    async def _links(self) -> dict[str, Link]:
        return await self._netlink.links(self._prefix)

    def _tunnel(self, vni: int) -> str:
        return f"{self._prefix}vx{vni}"

    def _check_device(self, device: str) -> None:
        if not device.startswith(f"{self._prefix}p") or len(device) > 15:
            accepted = f"{self._prefix}p and at most {14 - len(self._prefix)} more characters"
            raise Refused(INVALID, f"{device} is not a tap of ours", hint=accepted)

    async def _make_bridge(self, name: str) -> None:
        await self._netlink.add(name, "bridge", br_mcast_snooping=0, br_stp_state=0)
        # The host must not be reachable by guests through the bridge's own MAC: no IPv6, no
        # answer to ARP, and nothing whose sender is not routed this way (nobody is).
        write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 1)
        write_sysctl(f"net/ipv4/conf/{name}/arp_ignore", 8)
        write_sysctl(f"net/ipv4/conf/{name}/rp_filter", 1)

    async def _ensure_tunnel(self, segment: Segment, bridge: Link, present: Link | None) -> None:
        name = self._tunnel(segment.vni)
        if present is not None and _vtep(present) != segment.local_vtep:
            await self._netlink.delete(present.index)
            present = None
        if segment.local_vtep is None:
            return
        if present is None:
            local = "vxlan_local" if ip_address(segment.local_vtep).version == 4 else "vxlan_local6"
            await self._netlink.add(
                name,
                "vxlan",
                vxlan_id=segment.vni,
                vxlan_port=self._config.vxlan_port,
                vxlan_learning=False,
                **{local: segment.local_vtep},
            )
            write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 1)
            present = (await self._links())[name]
        await self._netlink.set(present.index, mtu=segment.mtu, master=bridge.index)
        await self._netlink.set_port(
            present.index, learning=0, neigh_suppress=1, unicast_flood=0, mcast_flood=1,
            bcast_flood=1,
        )  # fmt: skip
        await self._set_peers(present, set(segment.peers))
        await self._netlink.set(present.index, state="up")

    async def _set_peers(self, tunnel: Link, wanted: set[str]) -> None:
        present = await self._peers(tunnel)
        for peer in present - wanted:
            await self._netlink.change_fdb("del", tunnel.index, ZERO_MAC, dst=peer, **IN_TUNNEL)
        for peer in sorted(wanted - present):
            await self._netlink.change_fdb("append", tunnel.index, ZERO_MAC, dst=peer, **IN_TUNNEL)

    async def _peers(self, tunnel: Link) -> set[str]:
        entries = await self._netlink.fdb(tunnel.index)
        return {e.dst for e in entries if e.own and e.mac == ZERO_MAC and e.dst}

    async def _set_station_macs(self, tunnel: Link, wanted: dict[str, str]) -> None:
        entries = await self._netlink.fdb(tunnel.index)
        present = {e.mac: e.dst for e in entries if e.own and e.dst and e.mac != ZERO_MAC}
        for mac, vtep in present.items():
            if wanted.get(mac) != vtep:
                await self._netlink.change_fdb("del", tunnel.index, mac, dst=vtep, **IN_TUNNEL)
        for mac in {e.mac for e in entries if not e.own and e.state == 64} - wanted.keys():
            await self._netlink.change_fdb("del", tunnel.index, mac, flags=4)
        for mac, vtep in wanted.items():
            if present.get(mac) != vtep:
                await self._netlink.change_fdb("add", tunnel.index, mac, dst=vtep, **IN_TUNNEL)
            await self._netlink.change_fdb("add", tunnel.index, mac, **IN_BRIDGE)

    async def _pin_mac(self, tap: Link, mac: str) -> None:
        entries = await self._netlink.fdb(tap.index)
        pinned = {e.mac for e in entries if not e.own and e.state == 64}
        for old in pinned - {mac}:
            await self._netlink.change_fdb("del", tap.index, old, flags=4)
        if mac not in pinned:
            await self._netlink.change_fdb("add", tap.index, mac, **IN_BRIDGE)

    async def _read_segment(self, vni: int, bridge: Link, tunnel: Link | None) -> Segment:
        network, _, generation = bridge.alias.partition(" ")
        return Segment(
            network=ResourceId(network),
            vni=vni,
            mtu=bridge.mtu,
            generation=int(generation or 0),
            local_vtep=_vtep(tunnel) if tunnel else None,
            peers=tuple(sorted(await self._peers(tunnel))) if tunnel else (),
        )


def _present(path: str) -> bool:
    return Path(path).exists()


def _vtep(tunnel: Link) -> str | None:
    return tunnel.options.get("vxlan_local") or tunnel.options.get("vxlan_local6")


def _taps_on(links: dict[str, Link], bridge: Link) -> list[Link | None]:
    return [li for li in links.values() if li.kind == "tun" and li.master == bridge.index]


def _plug_record(plug: Plug) -> str:
    return f"{plug.port} {plug.generation} {plug.mac} {','.join(plug.addresses)}"


def _read_plug(link: Link, vni: int) -> Plug:
    """The plug of a tap; a tap without a record (its making was cut short) is generation 0
    of no port, so that whoever compares sees that it is not wanted."""
    port, generation, mac, addresses = [*link.alias.split(" "), "", "", "", ""][:4]
    return Plug(
        port=ResourceId(port),
        vni=vni,
        device=link.name,
        mac=mac,
        addresses=tuple(a for a in addresses.split(",") if a),
        mtu=link.mtu,
        generation=int(generation or 0),
        up=link.up,
    )


async def _load_br_netfilter() -> None:
    """Load the module where it is not there, and keep it off the bridges of others: it would
    put all of them behind the host's firewall."""
    if _present("/proc/sys/net/bridge"):
        return
    await run("modprobe", "br_netfilter")
    for key in ("iptables", "ip6tables", "arptables"):
        write_sysctl(f"net/bridge/bridge-nf-call-{key}", 0)


@hookimpl
def trivet_switch_drivers() -> list[type[LinuxBridge]]:
    """Register the driver."""
    return [LinuxBridge]
