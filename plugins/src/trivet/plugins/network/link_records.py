"""Names and records of the switch's links: what is ours, and what it was made for.

A link's name has our prefix and a fixed form; its record is its alias, written last. A link of
such a name whose alias is somebody else's is somebody else's: it is neither shown nor touched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from trivet.contracts.model import ResourceId
from trivet.contracts.network.port import PortQos, Rate
from trivet.contracts.network.switch import Plug, Segment
from trivet.plugins.network.netlink import Link

_SEGMENT = re.compile(r"(network-[0-9a-f]{16}) (\d+)|")
_PLUG = re.compile(r"(port-[0-9a-f]{16}) (\d+) ([0-9a-f:]{17}) (\S*)( \S+)?|")


@dataclass(frozen=True)
class Names:
    """The names of the links of one prefix."""

    prefix: str

    def bridge(self, vni: int) -> str:
        """The bridge of a segment."""
        return f"{self.prefix}br{vni}"

    def tunnel(self, vni: int) -> str:
        """The VXLAN link of a segment."""
        return f"{self.prefix}vx{vni}"

    def is_tap(self, name: str) -> bool:
        """Whether it is a name for a tap of ours."""
        return re.fullmatch(rf"{self.prefix}p[0-9a-f]{{10}}", name) is not None

    def vni(self, name: str) -> int | None:
        """The VNI in a bridge's name; None where it is none of ours."""
        return self._number("br", name)

    def tunnel_vni(self, name: str) -> int | None:
        """The VNI in a tunnel's name; None where it is none of ours."""
        return self._number("vx", name)

    def _number(self, letters: str, name: str) -> int | None:
        found = re.fullmatch(rf"{self.prefix}{letters}(\d{{1,8}})", name)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class OurLinks:
    """The switch's links among all: bridges by VNI, tunnels by VNI, taps by name."""

    bridges: dict[int, Link]
    tunnels: dict[int, Link]
    taps: dict[str, Link]

    def vni_of(self, tap: Link) -> int:
        """The segment a tap is on; 0: none."""
        return next((v for v, b in self.bridges.items() if b.index == tap.master), 0)

    def taps_on(self, bridge: Link) -> list[Link]:
        """The taps on a bridge."""
        return [t for t in self.taps.values() if t.master == bridge.index]


def ours(links: dict[str, Link], names: Names) -> OurLinks:
    """Which of these links are the switch's."""
    bridges = {
        vni: link
        for name, link in links.items()
        if link.kind == "bridge"
        and (vni := names.vni(name)) is not None
        and _SEGMENT.fullmatch(link.alias)
    }
    tunnels = {
        vni: link
        for name, link in links.items()
        if link.kind == "vxlan"
        and (vni := names.tunnel_vni(name)) is not None
        and link.options.get("vxlan_id") == vni
    }
    taps = {
        name: link
        for name, link in links.items()
        if link.kind == "tun" and names.is_tap(name) and _PLUG.fullmatch(link.alias)
    }
    return OurLinks(bridges, tunnels, taps)


def segment_record(segment: Segment) -> str:
    """What a bridge says of its segment."""
    return f"{segment.network} {segment.generation}"


def read_segment(
    bridge: Link | None, vni: int, vtep: str | None, peers: tuple[str, ...]
) -> Segment:
    """The segment of a bridge; generation 0 of no network where its making was cut short, or
    nothing but its tunnel is left."""
    network, _, generation = (bridge.alias if bridge else "").partition(" ")
    return Segment(
        network=ResourceId(network),
        vni=vni,
        mtu=bridge.mtu if bridge else 0,
        generation=int(generation or 0),
        local_vtep=vtep,
        peers=peers,
    )


def plug_record(plug: Plug) -> str:
    """What a tap says of its port."""
    record = f"{plug.port} {plug.generation} {plug.mac} {','.join(plug.addresses)}"
    if plug.qos.bounded:
        record += f" {_rate(plug.qos.ingress)},{_rate(plug.qos.egress)}"
    return record


def _rate(rate: Rate | None) -> str:
    return f"{rate.bytes_per_s}/{rate.burst_bytes or ''}" if rate else "-"


def _read_rate(text: str) -> Rate | None:
    if "/" not in text:
        return None
    per_s, burst = text.split("/")
    return Rate(bytes_per_s=int(per_s), burst_bytes=int(burst) if burst else None)


def read_plug(link: Link, vni: int) -> Plug:
    """The plug of a tap; a tap without a record (its making was cut short) is generation 0
    of no port, so that whoever compares sees that it is not wanted."""
    port, generation, mac, addresses, qos = [*link.alias.split(" "), "", "", "", "", ""][:5]
    ingress, _, egress = qos.partition(",")
    return Plug(
        port=ResourceId(port),
        vni=vni,
        device=link.name,
        mac=mac,
        addresses=tuple(a for a in addresses.split(",") if a),
        mtu=link.mtu,
        generation=int(generation or 0),
        up=link.up,
        qos=PortQos(ingress=_read_rate(ingress), egress=_read_rate(egress)),
    )
