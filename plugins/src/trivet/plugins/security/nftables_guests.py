"""The chains of a port: who its guest may be, and what may leave it and reach it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from trivet.contracts.security.firewall import Binding, Ruleset, link_local
from trivet.contracts.security.group import Direction
from trivet.plugins.security.nftables_parts import (
    LINK_LOCAL_PREFIX,
    TARGET,
    TARGET_PREFIX,
    Names,
    Parts,
    hook_line,
    port_marker,
)
from trivet.plugins.security.nftables_policy import (
    PolicyKey,
    policy_name,
    short,
)
from trivet.plugins.security.nftables_slots import Slots
from trivet.plugins.security.nftables_text import Elements
from trivet.plugins.security.nftables_words import braces

# --- who a guest may be ---------------------------------------------------------------------


def own_addresses(binding: Binding) -> tuple[list[IPv4Address], list[IPv6Address]]:
    """The addresses that are a guest's own, whatever others do."""
    parsed = [ip_address(a) for a in binding.addresses]
    v4 = sorted(a for a in parsed if isinstance(a, IPv4Address))
    made = IPv6Address(link_local(binding.mac))
    v6 = sorted({*(a for a in parsed if isinstance(a, IPv6Address)), made})
    return v4, v6


def taken_addresses(ruleset: Ruleset, slots: Slots) -> dict[int, list[str]]:
    """By zone, the IPv6 addresses that are a port's here or the gateway's, and so nobody
    else's. A guest's own are let through before these are looked at."""
    taken: dict[int, set[IPv6Address]] = {zone: set() for zone in slots.zones.values()}
    for binding in ruleset.ports:
        of_zone = taken[slots.zones[binding.vni]]
        of_zone.update(own_addresses(binding)[1])
        of_zone.update(IPv6Address(g) for g in binding.gateways if ":" in g)
    return {zone: [str(a) for a in sorted(found)] for zone, found in sorted(taken.items())}


def targets(addresses: Iterable[str]) -> Elements:
    """The same addresses as numbers: what a neighbour message speaks of is raw payload."""
    numbers = (f"0x{int(IPv6Address(a)):032x}" for a in addresses)
    return Elements(f"typeof {TARGET}", dict.fromkeys(numbers, ""))


def source_chain(parts: Parts, slot: int, binding: Binding, zone: int) -> None:
    """Whether the source of what a guest sends is its own."""
    v4, v6 = own_addresses(binding)
    mac, spoofed = binding.mac, f"counter name l2_spoofed_{slot} drop"
    senders = braces(["0.0.0.0", *map(str, v4)])
    rules = [
        f"ether saddr != {mac} {spoofed}",
        (
            "ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 "
            f"arp saddr ether {mac} arp saddr ip {senders} return"
        ),
    ]
    if v4:
        rules.append(f"ether type ip ip saddr {braces(map(str, v4))} return")
    rules.extend(
        [
            "ether type ip ip saddr 0.0.0.0 udp sport 68 udp dport 67 return",
            f"ether type ip6 ip6 saddr {braces(map(str, v6))} return",
            "ether type ip6 ip6 saddr :: icmpv6 type { 133, 135, 131, 143 } return",
            # A link-local address of its own choice, as privacy demands, but nobody else's.
            f"ether type ip6 ip6 saddr @taken_{zone} {spoofed}",
            "ether type ip6 ip6 saddr fe80::/10 return",
            spoofed,
        ]
    )
    parts.chain(f"source_{slot}", rules, marker=port_marker(slot, binding))


def bridge_entry(parts: Parts, ports: Sequence[tuple[int, Binding]], names: Names) -> None:
    """Sources are checked first; and guests and this host do not talk over the bridge: the
    gateway, in its own namespace, is a link like any other."""
    parts.verdicts("sources", "ifname", ((f'"{b.device}"', f"goto source_{s}") for s, b in ports))
    parts.chain("from_taps", ["iifname vmap @sources", "drop"])
    entry = [f"iifname {names.taps} jump from_taps"]
    parts.chain("prerouting", entry, hook=hook_line("prerouting", -310))
    parts.chain("input", [f"iifname {names.links} drop"], hook=hook_line("input", -310))
    parts.chain("output", [f"oifname {names.links} drop"], hook=hook_line("output", -310))


# --- the rules of a port --------------------------------------------------------------------


def port_judges(parts: Parts, slot: int, binding: Binding, policy: PolicyKey, slots: Slots) -> None:
    """What may leave the port, and what may reach it."""
    marker = port_marker(slot, binding)
    zone = slots.zones[binding.vni]
    out, into = (policy_name(policy, d) for d in (Direction.OUT, Direction.IN))
    parts.chain(f"out_{slot}", _out_rules(slot, binding, zone, out), marker=marker)
    parts.chain(f"in_{slot}", _in_rules(slot, binding, into), marker=marker)


def _stateful(slot: int, direction: str, policy: str) -> list[str]:
    passed = f"counter name {direction}_passed_{slot}"
    return [
        f"counter name {direction}_seen_{slot}",
        f"ct state established,related {passed} return",
        "ct state invalid drop",
        f"jump {policy}",
        f"{passed} return",
    ]


def _out_rules(slot: int, binding: Binding, zone: int, policy: str) -> list[str]:
    spoofed = f"counter name spoofed_{slot} drop"
    own = braces(targets(map(str, own_addresses(binding)[1])).elements)
    v4_gateways = [g for g in binding.gateways if ":" not in g]
    servers = braces(["255.255.255.255", *v4_gateways])
    # What speaks for an address: an advertisement, and a probe of duplicate detection.
    speaking = ("icmpv6 type 136", "ip6 saddr :: icmpv6 type 135")
    return [
        f"udp dport {{ 68, 546 }} {spoofed}",
        f"icmpv6 type {{ 134, 137 }} {spoofed}",
        *(f"{what} {TARGET} {own} return" for what in speaking),
        *(f"{what} {TARGET} @speakers_{zone} {spoofed}" for what in speaking),
        *(f"{what} {TARGET_PREFIX} != {LINK_LOCAL_PREFIX} {spoofed}" for what in speaking),
        "icmpv6 type { 131, 132, 133, 135, 136, 143 } return",
        f"ip daddr {servers} udp sport 68 udp dport 67 return",
        "ip6 daddr ff02::1:2 udp sport 546 udp dport 547 return",
        *_stateful(slot, "out", policy),
    ]


def _in_rules(slot: int, binding: Binding, policy: str) -> list[str]:
    v4_gateways = [g for g in binding.gateways if ":" not in g]
    dhcp = [f"ip saddr {braces(v4_gateways)} udp sport 67 udp dport 68 return"]
    return [
        "ip6 hoplimit 255 icmpv6 type { 133, 134, 135, 136 } return",
        "icmpv6 type 130 return",
        *(dhcp if v4_gateways else []),
        "ip6 saddr fe80::/10 udp sport 547 udp dport 546 return",
        *_stateful(slot, "in", policy),
    ]


def group_marks(parts: Parts, ruleset: Ruleset) -> None:
    """A chain a group that nothing jumps to: the record of its generation."""
    for group in ruleset.groups:
        marker = f"group={group.id} generation={group.generation}"
        parts.chain(f"mark_{short(group.id)}", [], marker=marker)
