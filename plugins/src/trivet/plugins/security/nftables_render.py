"""From a ruleset to the nft text that puts it in force: pure, and the same each time.

A guest's packet is judged three times, each at the place where it can't be avoided:

* `prerouting` of the bridge, before the bridge learns: is the source its own (MAC, IPv4, IPv6,
  ARP sender), and untagged? A tap that has no chain is dropped here.
* `leaving`: after defragmentation, so that no fragment hides a port. First what no group can
  allow (DHCP server, router advertisement, redirect, another's neighbour advertisement), then
  what none can forbid (neighbour discovery, DHCP client), then the port's groups.
* `arriving`: likewise towards a guest.

Where the bridge tracks connections itself (`Mode.NATIVE`) all of it is one bridge table. Where
not (`Mode.BR_NETFILTER`), `leaving` and `arriving` live in an inet table, which sees bridged
packets but not their ports: the bridge puts both slots in the packet's mark, and the inet table
sets the top bit when it has judged. A packet that reaches the end of the bridge's forwarding
without that bit is dropped, so a bridge that does not show its packets to the inet table passes
nothing. Each chain begins with a rule whose comment says how many rules follow and whose they
are, and a chain `contents` says how much each set holds: that is what `nftables_readback` reads.

Verdicts: `return` allows and `drop` denies; only base chains accept.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address

from trivet.contracts.security.evaluate import NamedRule
from trivet.contracts.security.firewall import Binding, Ruleset, link_local
from trivet.contracts.security.group import Direction
from trivet.plugins.security.nftables_policy import (
    LOG_GROUP,
    Policy,
    PolicyKey,
    PolicyMemory,
    compile_policy,
    list_sets,
    policies,
    policy_name,
    short,
)
from trivet.plugins.security.nftables_slots import Slots
from trivet.plugins.security.nftables_text import Chain, Elements, Table, Tables, removal
from trivet.plugins.security.nftables_words import braces

Compile = Callable[[PolicyKey, Sequence[NamedRule]], Policy]

JUDGED = 0x80000000
VXLAN_PORT = 4789
COUNTERS = ("spoofed", "in_seen", "in_passed", "out_seen", "out_passed")
CONTENTS = "contents"
FAMILY_ORDER = ("bridge", "inet")
TARGET = "@th,64,128"
"""The address that a neighbour message speaks of: behind eight bytes of ICMPv6."""
TARGET_PREFIX = "@th,64,10"
LINK_LOCAL_PREFIX = "0x3fa"


class Mode(StrEnum):
    """How connections of bridged packets are tracked."""

    NATIVE = "bridge-conntrack"
    BR_NETFILTER = "br-netfilter"


@dataclass(frozen=True)
class Names:
    """The names that hang on the driver's prefix. The switch names bridges the same way."""

    prefix: str

    @property
    def table(self) -> str:
        """The tables, one a family."""
        return f"{self.prefix}_firewall"

    @property
    def taps(self) -> str:
        """All devices of guests."""
        return f'"{self.prefix}p*"'

    @property
    def links(self) -> str:
        """All links of Trivet's."""
        return f'"{self.prefix}*"'

    @property
    def bridges(self) -> str:
        """All bridges of Trivet's."""
        return f'"{self.prefix}br*"'

    @property
    def log_group(self) -> str:
        """The group of the kernel's log that this instance reads: one host may have several."""
        return str(1000 + zlib.crc32(f"trivet {self.prefix}".encode()) % 60000)

    def bridge(self, vni: int) -> str:
        """The bridge of a virtual network."""
        return f"{self.prefix}br{vni}"


def judge_family(mode: Mode) -> str:
    """The family whose table holds the stateful chains."""
    return "bridge" if mode is Mode.NATIVE else "inet"


@dataclass(frozen=True)
class Rendered:
    """The tables of a ruleset, and the rules that are counted or logged, by their key."""

    tables: Tables
    keys: Mapping[str, NamedRule] = field(default_factory=dict)


@dataclass
class _Parts:
    """A table while it is made. Each chain begins with a rule that carries its marker."""

    chains: dict[str, Chain] = field(default_factory=dict)
    sets: dict[str, Elements] = field(default_factory=dict)
    counters: set[str] = field(default_factory=set)

    def chain(self, name: str, rules: Sequence[str], *, hook: str = "", marker: str = "") -> None:
        comment = f"rules={len(rules) + 1}" + (f" {marker}" if marker else "")
        self.chains[name] = Chain((f'continue comment "{comment}"', *rules), hook)

    def verdicts(self, name: str, type_: str, elements: Iterable[tuple[str, str]]) -> None:
        self.sets[name] = Elements(f"{type_} : verdict", dict(elements), kind="map")

    def table(self) -> Table:
        """What was put together, with a chain that says how much each set holds."""
        marks = [
            f'continue comment "set={name} elements={len(found.elements)}"'
            for name, found in sorted(self.sets.items())
        ]
        self.chain(CONTENTS, marks)
        return Table(self.chains, self.sets, frozenset(self.counters))


def render(
    ruleset: Ruleset, slots: Slots, mode: Mode, prefix: str, compiled: Compile = compile_policy
) -> Rendered:
    """The tables that `ruleset` amounts to."""
    names = Names(prefix)
    of_port, rules = policies(ruleset)
    ports = [(slots.ports[b.port], b) for b in ruleset.ports]
    judging = _Parts()
    bridge, inet = _Parts(), _Parts()
    keys: dict[str, NamedRule] = {}
    taken = _taken_addresses(ruleset, slots)
    for key, found in rules.items():
        policy = compiled(key, found)
        keys |= policy.keys
        judging.sets |= policy.sets
        judging.counters |= policy.counters
        for name, lines in policy.chains.items():
            judging.chain(name, [line.replace(LOG_GROUP, names.log_group) for line in lines])
    if isinstance(compiled, PolicyMemory):
        compiled.forget_but(rules)
    judging.sets |= list_sets(ruleset.lists)
    for zone, addresses in taken.items():
        judging.sets[f"speakers_{zone}"] = _targets(addresses)
    for slot, binding in ports:
        judging.counters |= {f"{what}_{slot}" for what in COUNTERS}
        _port_judges(judging, slot, binding, of_port[binding.port], slots)
    _group_marks(judging, ruleset)
    for zone, addresses in taken.items():
        bridge.sets[f"taken_{zone}"] = Elements("ipv6_addr", dict.fromkeys(addresses, ""))
    for slot, binding in ports:
        bridge.counters.add(f"l2_spoofed_{slot}")
        _source_chain(bridge, slot, binding, slots.zones[binding.vni])
    _bridge_entry(bridge, ports, names)
    _host_side(inet, names)
    if mode is Mode.NATIVE:
        _take_over(bridge, judging)
        _native_flow(bridge, ports, slots, names)
    else:
        _take_over(inet, judging)
        _marking_flow(bridge, ports, names)
        _marked_flow(inet, ports, slots, names)
    return Rendered({"bridge": bridge.table(), "inet": inet.table()}, keys)


def _take_over(parts: _Parts, more: _Parts) -> None:
    parts.chains |= more.chains
    parts.sets |= more.sets
    parts.counters |= more.counters


def remove_text(prefix: str) -> str:
    """What removes all tables of Trivet's, there or not."""
    return removal(FAMILY_ORDER, Names(prefix).table)


def _hook(hook: str, priority: int) -> str:
    return f"type filter hook {hook} priority {priority}; policy accept;"


def _port_marker(slot: int, binding: Binding) -> str:
    return f"port={binding.port} generation={binding.generation} slot={slot}"


# --- who a guest may be ---------------------------------------------------------------------


def own_addresses(binding: Binding) -> tuple[list[IPv4Address], list[IPv6Address]]:
    """The addresses that are a guest's own, whatever others do."""
    parsed = [ip_address(a) for a in binding.addresses]
    v4 = sorted(a for a in parsed if isinstance(a, IPv4Address))
    made = IPv6Address(link_local(binding.mac))
    v6 = sorted({*(a for a in parsed if isinstance(a, IPv6Address)), made})
    return v4, v6


def _taken_addresses(ruleset: Ruleset, slots: Slots) -> dict[int, list[str]]:
    """By zone, the IPv6 addresses that are a port's here or the gateway's, and so nobody
    else's. A guest's own are let through before these are looked at."""
    taken: dict[int, set[IPv6Address]] = {zone: set() for zone in slots.zones.values()}
    for binding in ruleset.ports:
        of_zone = taken[slots.zones[binding.vni]]
        of_zone.update(own_addresses(binding)[1])
        of_zone.update(IPv6Address(g) for g in binding.gateways if ":" in g)
    return {zone: [str(a) for a in sorted(found)] for zone, found in sorted(taken.items())}


def _targets(addresses: Iterable[str]) -> Elements:
    """The same addresses as numbers: what a neighbour message speaks of is raw payload."""
    numbers = (f"0x{int(IPv6Address(a)):032x}" for a in addresses)
    return Elements(f"typeof {TARGET}", dict.fromkeys(numbers, ""))


def _source_chain(parts: _Parts, slot: int, binding: Binding, zone: int) -> None:
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
    parts.chain(f"source_{slot}", rules, marker=_port_marker(slot, binding))


def _bridge_entry(parts: _Parts, ports: Sequence[tuple[int, Binding]], names: Names) -> None:
    """Sources are checked first; and guests and this host do not talk over the bridge: the
    gateway, in its own namespace, is a link like any other."""
    parts.verdicts("sources", "ifname", ((f'"{b.device}"', f"goto source_{s}") for s, b in ports))
    parts.chain("from_taps", ["iifname vmap @sources", "drop"])
    entry = [f"iifname {names.taps} jump from_taps"]
    parts.chain("prerouting", entry, hook=_hook("prerouting", -310))
    parts.chain("input", [f"iifname {names.links} drop"], hook=_hook("input", -310))
    parts.chain("output", [f"oifname {names.links} drop"], hook=_hook("output", -310))


# --- the rules of a port --------------------------------------------------------------------


def _port_judges(
    parts: _Parts, slot: int, binding: Binding, policy: PolicyKey, slots: Slots
) -> None:
    marker = _port_marker(slot, binding)
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
    own = braces(_targets(map(str, own_addresses(binding)[1])).elements)
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


def _group_marks(parts: _Parts, ruleset: Ruleset) -> None:
    """A chain a group that nothing jumps to: the record of its generation."""
    for group in ruleset.groups:
        marker = f"group={group.id} generation={group.generation}"
        parts.chain(f"mark_{short(group.id)}", [], marker=marker)


# --- the ways through the tables ------------------------------------------------------------


def _towards(binding: Binding, last: Sequence[str]) -> list[str]:
    """Towards a guest: nothing that is meant for another, ARP, and IP as `last` says."""
    return [
        f"ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 ether daddr != {binding.mac} drop",
        "ether type arp return",
        "ether type != { ip, ip6 } drop",
        *last,
    ]


def _native_flow(
    parts: _Parts, ports: Sequence[tuple[int, Binding]], slots: Slots, names: Names
) -> None:
    for slot, b in ports:
        towards = _towards(b, [f"goto in_{slot}"])
        parts.chain(f"towards_{slot}", towards, marker=_port_marker(slot, b))
    parts.verdicts("leave", "ifname", ((f'"{b.device}"', f"goto out_{s}") for s, b in ports))
    parts.verdicts("arrive", "ifname", ((f'"{b.device}"', f"goto towards_{s}") for s, b in ports))
    _zones(parts, "meta ibrname", slots, names)
    parts.chain("leaving", ["ether type arp return", "iifname vmap @leave", "drop"])
    parts.chain("arriving", ["oifname vmap @arrive", "drop"])
    ways = [f"iifname {names.taps} jump leaving", f"oifname {names.taps} jump arriving"]
    parts.chain("forward", ways, hook=_hook("forward", -310))


def _marking_flow(parts: _Parts, ports: Sequence[tuple[int, Binding]], names: Names) -> None:
    """The bridge's half of `BR_NETFILTER`: marks before, and a look for the judgement after.

    Priority 100, since `br_netfilter` resumes the hook behind its own priority, 0.
    """
    for slot, b in ports:
        parts.chain(f"leave_{slot}", [f"meta mark set 0x{slot << 16:08x} return"])
        towards = _towards(b, [f"meta mark set meta mark or 0x{slot:x} return"])
        parts.chain(f"towards_{slot}", towards, marker=_port_marker(slot, b))
    parts.verdicts("leave", "ifname", ((f'"{b.device}"', f"goto leave_{s}") for s, b in ports))
    parts.verdicts("arrive", "ifname", ((f'"{b.device}"', f"goto towards_{s}") for s, b in ports))
    parts.chain("leaving", ["ether type arp return", "iifname vmap @leave", "drop"])
    parts.chain("arriving", ["oifname vmap @arrive", "drop"])
    judged = ["ether type arp return", f"meta mark & 0x{JUDGED:x} == 0 drop", "meta mark set 0"]
    parts.chain("judged", judged)
    ways = [
        f"iifname {names.links} meta mark set 0",
        f"oifname {names.taps} meta mark set 0",
        f"iifname {names.taps} jump leaving",
        f"oifname {names.taps} jump arriving",
    ]
    parts.chain("forward", ways, hook=_hook("forward", -310))
    last = [f"iifname {names.taps} goto judged", f"oifname {names.taps} goto judged"]
    parts.chain("forwarded", last, hook=_hook("forward", 100))


def _marked_flow(
    parts: _Parts, ports: Sequence[tuple[int, Binding]], slots: Slots, names: Names
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
    parts.chain("forward", [f"iifname {names.bridges} jump bridged"], hook=_hook("forward", 0))


def _zones(parts: _Parts, key: str, slots: Slots, names: Names) -> None:
    """The conntrack zone of each network: other networks may use the same addresses."""
    zones = [f'"{names.bridge(vni)}" : {zone}' for vni, zone in sorted(slots.zones.items())]
    rules = [f"ct zone set {key} map {braces(zones)}"] if zones else []
    parts.chain("zones", rules, hook=_hook("prerouting", -300))


def _host_side(parts: _Parts, names: Names) -> None:
    """A tap that is on no bridge reaches this host's own stack: nothing passes there. And the
    tunnels' outer packets need no connection tracking."""
    outer = f"udp dport {VXLAN_PORT} notrack"
    unbridged = [f"iifname {names.taps} drop", f"iifname != {names.bridges} {outer}"]
    parts.chain("unbridged_in", unbridged, hook=_hook("prerouting", -310))
    sent = [f"oifname {names.taps} drop", outer]
    parts.chain("unbridged_out", sent, hook=_hook("output", -310))
