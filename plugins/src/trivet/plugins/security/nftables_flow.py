"""The ways through the tables: from hooks to the chains of ports, in both modes."""

from __future__ import annotations

from collections.abc import Sequence

from trivet.contracts.security.firewall import Binding
from trivet.plugins.security.nftables_parts import (
    JUDGED,
    VXLAN_PORT,
    Names,
    Parts,
    hook_line,
    port_marker,
)
from trivet.plugins.security.nftables_slots import Slots
from trivet.plugins.security.nftables_words import braces

# --- the ways through the tables ------------------------------------------------------------


def _towards(binding: Binding, last: Sequence[str]) -> list[str]:
    """Towards a guest: nothing that is meant for another, ARP, and IP as `last` says."""
    return [
        f"ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 ether daddr != {binding.mac} drop",
        "ether type arp return",
        "ether type != { ip, ip6 } drop",
        *last,
    ]


def _at_home(names: Names) -> list[str]:
    """What is between a guest and its gateway does not leave the node: every node has the
    same gateway, and another one's DHCP server would refuse a guest that it does not know."""
    away = f"oifname {names.tunnels}"
    return [
        f"{away} udp dport {{ 67, 68, 546, 547 }} drop",
        f"{away} icmpv6 type {{ 133, 134 }} drop",
    ]


def native_flow(
    parts: Parts, ports: Sequence[tuple[int, Binding]], slots: Slots, names: Names
) -> None:
    """All of it in the bridge's table, which tracks connections itself."""
    for slot, b in ports:
        towards = _towards(b, [f"goto in_{slot}"])
        parts.chain(f"towards_{slot}", towards, marker=port_marker(slot, b))
    parts.verdicts("leave", "ifname", ((f'"{b.device}"', f"goto out_{s}") for s, b in ports))
    parts.verdicts("arrive", "ifname", ((f'"{b.device}"', f"goto towards_{s}") for s, b in ports))
    _zones(parts, "meta ibrname", slots, names)
    parts.chain("leaving", ["ether type arp return", "iifname vmap @leave", "drop"])
    parts.chain("arriving", ["oifname vmap @arrive", "drop"])
    ways = [f"iifname {names.taps} jump leaving", f"oifname {names.taps} jump arriving"]
    parts.chain("forward", [*_at_home(names), *ways], hook=hook_line("forward", -310))


def marking_flow(parts: Parts, ports: Sequence[tuple[int, Binding]], names: Names) -> None:
    """The bridge's half of `BR_NETFILTER`: marks before, and a look for the judgement after.

    Priority 100, since `br_netfilter` resumes the hook behind its own priority, 0.
    """
    for slot, b in ports:
        parts.chain(f"leave_{slot}", [f"meta mark set 0x{slot << 16:08x} return"])
        towards = _towards(b, [f"meta mark set meta mark or 0x{slot:x} return"])
        parts.chain(f"towards_{slot}", towards, marker=port_marker(slot, b))
    parts.verdicts("leave", "ifname", ((f'"{b.device}"', f"goto leave_{s}") for s, b in ports))
    parts.verdicts("arrive", "ifname", ((f'"{b.device}"', f"goto towards_{s}") for s, b in ports))
    parts.chain("leaving", ["ether type arp return", "iifname vmap @leave", "drop"])
    parts.chain("arriving", ["oifname vmap @arrive", "drop"])
    judged = ["ether type arp return", f"meta mark & 0x{JUDGED:x} == 0 drop", "meta mark set 0"]
    parts.chain("judged", judged)
    ways = [
        *_at_home(names),
        f"iifname {names.links} meta mark set 0",
        f"oifname {names.taps} meta mark set 0",
        f"iifname {names.taps} jump leaving",
        f"oifname {names.taps} jump arriving",
    ]
    parts.chain("forward", ways, hook=hook_line("forward", -310))
    last = [f"iifname {names.taps} goto judged", f"oifname {names.taps} goto judged"]
    parts.chain("forwarded", last, hook=hook_line("forward", 100))


def marked_flow(
    parts: Parts, ports: Sequence[tuple[int, Binding]], slots: Slots, names: Names
) -> None:
    """The inet half of `BR_NETFILTER`. Here the links are the bridges."""
    leave = ((f"0x{slot << 16:08x}", f"goto out_{slot}") for slot, _ in ports)
    parts.verdicts("leave", "mark", leave)
    parts.verdicts("arrive", "mark", ((f"0x{s:08x}", f"goto in_{s}") for s, _ in ports))
    _zones(parts, "iifname", slots, names)
    parts.chain("leaving", ["meta mark & 0x7fff0000 vmap @leave", "drop"])
    parts.chain("arriving", ["meta mark & 0x00007fff vmap @arrive", "drop"])
    bridged = [
        "meta mark & 0x7fff0000 != 0 jump leaving",
        "meta mark & 0x00007fff != 0 jump arriving",
        f"meta mark set meta mark or 0x{JUDGED:x}",
    ]
    parts.chain("bridged", bridged)
    parts.chain("forward", [f"iifname {names.bridges} jump bridged"], hook=hook_line("forward", 0))


def _zones(parts: Parts, key: str, slots: Slots, names: Names) -> None:
    """The conntrack zone of each network: other networks may use the same addresses."""
    zones = [f'"{names.bridge(vni)}" : {zone}' for vni, zone in sorted(slots.zones.items())]
    rules = [f"ct zone set {key} map {braces(zones)}"] if zones else []
    parts.chain("zones", rules, hook=hook_line("prerouting", -300))


def host_side(parts: Parts, names: Names) -> None:
    """A tap that is on no bridge reaches this host's own stack: nothing passes there. And the
    tunnels' outer packets need no connection tracking."""
    outer = f"udp dport {VXLAN_PORT} notrack"
    unbridged = [f"iifname {names.taps} drop", f"iifname != {names.bridges} {outer}"]
    parts.chain("unbridged_in", unbridged, hook=hook_line("prerouting", -310))
    sent = [f"oifname {names.taps} drop", outer]
    parts.chain("unbridged_out", sent, hook=hook_line("output", -310))
