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
from trivet.contracts.network.drift import Drift
from trivet.contracts.network.switch import Plug, Segment, Station, SwitchState
from trivet.plugins.network import link_records
from trivet.plugins.network.bridge_tables import BridgeTables, pinned
from trivet.plugins.network.command import run, succeeds
from trivet.plugins.network.link_records import Names, OurLinks
from trivet.plugins.network.link_watch import LinkWatch
from trivet.plugins.network.netlink import Link, Netlink, write_sysctl
from trivet.plugins.network.port_rates import PortRates
from trivet.plugins.network.tap import make_tap

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
        self._names = Names(context.prefix)
        self._config = config
        self._netlink = Netlink()
        self._tables = BridgeTables(self._netlink)
        self._rates = PortRates(self._netlink, context.prefix)
        self._watch = LinkWatch(context.prefix)
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
        """Open the netlink sockets and settle where bridged frames are filtered."""
        await self._netlink.open()
        self._watch.open()
        await self._rates.sweep(set((await self._ours()).taps))
        mode = self._config.filtering
        if mode == "auto":
            native = await succeeds("nft", "-c", "-f", "-", stdin=NATIVE_CONNTRACK)
            mode = "native" if native else "br_netfilter"
        self._inet_hooks = int(mode == "br_netfilter")
        if self._inet_hooks:
            await _load_br_netfilter()

    async def close(self) -> None:
        """Close the sockets; the links stay."""
        self._watch.close()
        await self._netlink.close()

    async def changed(self) -> None:
        """Return when a link of ours came, went, or was set up, down or elsewhere."""
        await self._watch.changed()

    async def ensure_segment(self, segment: Segment) -> None:
        """Make the bridge, and the tunnel where there is a local VTEP."""
        async with self._lock:
            name = self._names.bridge(segment.vni)
            links = await self._links()
            if name not in links:
                await self._make_bridge(name)
                links = await self._links()
            bridge = links[name]
            hooks = self._inet_hooks
            await self._netlink.set_options(
                name, "bridge", br_nf_call_iptables=hooks, br_nf_call_ip6tables=hooks
            )
            await self._netlink.set(bridge.index, mtu=segment.mtu, state="up")
            tunnel = links.get(self._names.tunnel(segment.vni))
            await self._ensure_tunnel(segment, bridge, tunnel)
            # The record last: a segment that says so is complete.
            await self._netlink.set(bridge.index, ifalias=link_records.segment_record(segment))

    async def remove_segment(self, vni: int) -> None:
        """Remove the segment's taps, tunnel and bridge."""
        async with self._lock:
            ours = await self._ours()
            bridge = ours.bridges.get(vni)
            taps = ours.taps_on(bridge) if bridge else []
            for tap in taps:
                await self._rates.remove(tap.name)
            for link in (*taps, ours.tunnels.get(vni), bridge):
                if link is not None:
                    await self._netlink.delete(link.index)

    async def ensure_plug(self, plug: Plug) -> None:
        """Make the tap on its bridge; one that is there is changed, never made anew."""
        self._check_device(plug.device)
        async with self._lock:
            links = await self._links()
            bridge = links.get(self._names.bridge(plug.vni))
            if bridge is None:
                raise Refused(NOT_FOUND, f"segment {plug.vni} is not on this node")
            if plug.device not in links:
                make_tap(plug.device)
                write_sysctl(f"net/ipv6/conf/{plug.device}/disable_ipv6", 1)
                links = await self._links()
            tap = links[plug.device]
            if tap.master == bridge.index and _is_only_down(tap, plug):
                await self._netlink.set(tap.index, state="up")
                return
            if not plug.up:
                await self._netlink.set(tap.index, state="down")
            await self._netlink.set(tap.index, mtu=plug.mtu)
            if tap.master != bridge.index:
                await self._netlink.set(tap.index, master=bridge.index)
            await self._netlink.set_port(tap.index, learning=0, unicast_flood=0)
            await self._tables.pin(tap, plug.mac)
            await self._rates.apply(plug.device, plug.qos, links)
            await self._netlink.set(tap.index, ifalias=link_records.plug_record(plug))
            if plug.up:
                await self._netlink.set(tap.index, state="up")

    async def remove_plug(self, device: str) -> None:
        """Remove the tap."""
        self._check_device(device)
        async with self._lock:
            link = (await self._ours()).taps.get(device)
            if link is not None:
                await self._netlink.delete(link.index)
            await self._rates.remove(device)

    async def set_stations(self, vni: int, stations: tuple[Station, ...]) -> None:
        """Point each remote guest's MAC at its node. ARP for a remote one is answered here,
        that for one of this node's goes to nobody else."""
        async with self._lock:
            ours = await self._ours()
            bridge, tunnel = ours.bridges.get(vni), ours.tunnels.get(vni)
            if bridge is None:
                raise Refused(NOT_FOUND, f"segment {vni} is not on this node")
            if tunnel is None and stations:
                raise Refused(INVALID, f"segment {vni} has no tunnel", hint="give local_vtep")
            if tunnel is None:
                return
            away = {s.mac: s.vtep for s in stations if s.vtep is not None}
            await self._tables.set_stations(tunnel, away)
            # IPv4 alone: the bridge has no IPv6 (see `_make_bridge`), so ND goes the way of BUM.
            known = {a: s.mac for s in stations for a in s.addresses if ":" not in a}
            await self._tables.set_neighbours(bridge, known)

    async def state(self) -> SwitchState:
        """Segments and plugs as their links and the records on them say."""
        ours = await self._ours()
        segments = [
            await self._read_segment(vni, ours.bridges.get(vni), ours.tunnels.get(vni))
            for vni in sorted(ours.bridges.keys() | ours.tunnels.keys())
        ]
        plugs = [link_records.read_plug(t, ours.vni_of(t)) for _, t in sorted(ours.taps.items())]
        return SwitchState(segments=tuple(segments), plugs=tuple(plugs))

    async def drift(self) -> tuple[Drift, ...]:
        """What the links show of it: down, on no bridge, unfiltered, without its MAC."""
        ours = await self._ours()
        found: list[Drift] = []
        for vni, bridge in ours.bridges.items():
            network = ResourceId(bridge.alias.partition(" ")[0])
            wrong = self._bridge_drift(bridge, ours.tunnels.get(vni))
            found.extend(Drift(concerns=network, what=what) for what in wrong)
        plugs = {name: link_records.read_plug(tap, 0) for name, tap in ours.taps.items()}
        for device in await self._rates.wrong({name: p.qos for name, p in plugs.items()}):
            what = "the bounds on its traffic were changed"
            found.append(Drift(concerns=plugs[device].port, what=what))
        for name, tap in ours.taps.items():
            plug = plugs[name]
            if tap.master and plug.mac not in pinned(await self._netlink.fdb(tap.index)):
                what = "its tap's entry in the bridge was gone"
                found.append(Drift(concerns=plug.port, what=what))
        return tuple(d for d in found if d.concerns)

    def _bridge_drift(self, bridge: Link, tunnel: Link | None) -> list[str]:
        wrong = []
        if not bridge.up:
            wrong.append("its bridge was down")
        if bridge.options.get("br_nf_call_iptables", self._inet_hooks) != self._inet_hooks:
            wrong.append("its bridge passed the firewall by")
        if tunnel is not None and not tunnel.up:
            wrong.append("its tunnel was down")
        if tunnel is not None and tunnel.master != bridge.index:
            wrong.append("its tunnel was not on its bridge")
        return wrong

    async def _links(self) -> dict[str, Link]:
        return await self._netlink.links(self._names.prefix)

    async def _ours(self) -> OurLinks:
        return link_records.ours(await self._links(), self._names)

    def _check_device(self, device: str) -> None:
        if not self._names.is_tap(device):
            accepted = f"{self._names.prefix}p and ten hex digits"
            raise Refused(INVALID, f"{device} is not a tap of ours", hint=accepted)

    async def _make_bridge(self, name: str) -> None:
        await self._netlink.add(name, "bridge", br_mcast_snooping=0, br_stp_state=0)
        # The host must not be reachable by guests through the bridge's own MAC: no IPv6, no
        # answer to ARP, and nothing whose sender is not routed this way (nobody is).
        write_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", 1)
        write_sysctl(f"net/ipv4/conf/{name}/arp_ignore", 8)
        write_sysctl(f"net/ipv4/conf/{name}/rp_filter", 1)

    async def _ensure_tunnel(self, segment: Segment, bridge: Link, present: Link | None) -> None:
        name = self._names.tunnel(segment.vni)
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
        await self._tables.set_peers(present, set(segment.peers))
        await self._netlink.set(present.index, state="up")

    async def _read_segment(self, vni: int, bridge: Link | None, tunnel: Link | None) -> Segment:
        vtep = _vtep(tunnel) if tunnel else None
        peers = tuple(sorted(await self._tables.peers(tunnel))) if tunnel else ()
        return link_records.read_segment(bridge, vni, vtep, peers)


def _is_only_down(tap: Link, plug: Plug) -> bool:
    """Whether all of a plug was made, by its record, and it is to be raised."""
    return plug.up and link_records.read_plug(tap, plug.vni) == plug.model_copy(
        update={"up": False}
    )


def _present(path: str) -> bool:
    return Path(path).exists()


def _vtep(tunnel: Link) -> str | None:
    return tunnel.options.get("vxlan_local") or tunnel.options.get("vxlan_local6")


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
