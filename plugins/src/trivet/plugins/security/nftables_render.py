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
are: that is what `nftables_readback` reads.

Verdicts: `return` allows and `drop` denies; only base chains accept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address

from trivet.contracts.security.firewall import Binding, Ruleset
from trivet.contracts.security.group import Direction
from trivet.plugins.security.nftables_groups import braces, policies, render_policy
from trivet.plugins.security.nftables_slots import Slots

JUDGED = 0x80000000
VXLAN_PORT = 4789
COUNTERS = ("spoofed", "in_seen", "in_passed", "out_seen", "out_passed")


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

    def bridge(self, vni: int) -> str:
        """The bridge of a virtual network."""
        return f"{self.prefix}br{vni}"


def table_families(mode: Mode) -> tuple[str, ...]:
    """The families in which `mode` has a table; both modes have the same two."""
    return ("bridge", "inet")


def judge_family(mode: Mode) -> str:
    """The family whose table holds the stateful chains."""
    return "bridge" if mode is Mode.NATIVE else "inet"


def render(ruleset: Ruleset, slots: Slots, mode: Mode, prefix: str) -> str:
    """One transaction that replaces all tables of Trivet's by those of `ruleset`."""
    names = Names(prefix)
    of_port, rules = policies(ruleset)
    order = {key: number for number, key in enumerate(sorted(rules), start=1)}
    ports = [(slots.ports[b.port], b) for b in ruleset.ports]
    judging: list[str] = [_counters(slot) for slot, _ in ports]
    for key, number in order.items():
        judging.append(_chain(f"policy_{number}_in", render_policy(rules[key], Direction.IN)))
        judging.append(_chain(f"policy_{number}_out", render_policy(rules[key], Direction.OUT)))
    for slot, binding in ports:
        judging.extend(_port_judges(slot, binding, order[of_port[binding.port]]))
    judging.extend(_group_marks(ruleset))
    own = [_counter(f"l2_spoofed_{slot}") for slot, _ in ports]
    own.extend(_source_chain(slot, binding) for slot, binding in ports)
    own.extend(_bridge_entry(ports, names))
    if mode is Mode.NATIVE:
        bridge = [*own, *judging, *_native_flow(ports, slots, names)]
        inet = _host_side(names)
    else:
        bridge = [*own, *_marking_flow(ports, names)]
        inet = [*judging, *_marked_flow(ports, slots, names), *_host_side(names)]
    return remove_text(prefix) + _table("bridge", names, bridge) + _table("inet", names, inet)


def remove_text(prefix: str) -> str:
    """What removes all tables of Trivet's, there or not."""
    name = Names(prefix).table
    return "".join(f"table {f} {name}\ndelete table {f} {name}\n" for f in ("bridge", "inet"))


# --- pieces of text -------------------------------------------------------------------------


def _table(family: str, names: Names, parts: Iterable[str]) -> str:
    return f"table {family} {names.table} {{\n" + "".join(parts) + "}\n"


def _chain(name: str, rules: Sequence[str], *, hook: str = "", marker: str = "") -> str:
    """A chain. Its first rule does nothing but carry the marker."""
    comment = f"rules={len(rules) + 1}" + (f" {marker}" if marker else "")
    lines = [*([hook] if hook else []), f'continue comment "{comment}"', *rules]
    return f"  chain {name} {{\n" + "".join(f"    {line}\n" for line in lines) + "  }\n"


def _hook(hook: str, priority: int) -> str:
    return f"type filter hook {hook} priority {priority}; policy accept;"


def _counter(name: str) -> str:
    return f"  counter {name} {{\n  }}\n"


def _counters(slot: int) -> str:
    return "".join(_counter(f"{what}_{slot}") for what in COUNTERS)


def _map(name: str, type_: str, elements: Sequence[str]) -> str:
    filled = f"    elements = {braces(elements)}\n" if elements else ""
    return f"  map {name} {{\n    type {type_}\n{filled}  }}\n"


def _port_marker(slot: int, binding: Binding) -> str:
    return f"port={binding.port} generation={binding.generation} slot={slot}"


# --- who a guest may be ---------------------------------------------------------------------


def link_local(mac: str) -> IPv6Address:
    """The link-local address that is made from a MAC (EUI-64)."""
    octets = [int(part, 16) for part in mac.split(":")]
    eui = [octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]]
    return IPv6Address(bytes([0xFE, 0x80, 0, 0, 0, 0, 0, 0, *eui]))


def own_addresses(binding: Binding) -> tuple[list[IPv4Address], list[IPv6Address]]:
    """The addresses that a guest may send from."""
    parsed = [ip_address(a) for a in binding.addresses]
    v4 = sorted(a for a in parsed if isinstance(a, IPv4Address))
    v6 = sorted({*(a for a in parsed if isinstance(a, IPv6Address)), link_local(binding.mac)})
    return v4, v6


def _source_chain(slot: int, binding: Binding) -> str:
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
            spoofed,
        ]
    )
    return _chain(f"source_{slot}", rules, marker=_port_marker(slot, binding))


def _bridge_entry(ports: Sequence[tuple[int, Binding]], names: Names) -> list[str]:
    """Sources are checked first; and guests and this host do not talk over the bridge: the
    gateway, in its own namespace, is a link like any other."""
    sources = [f'"{b.device}" : goto source_{slot}' for slot, b in ports]
    return [
        _map("sources", "ifname : verdict", sources),
        _chain("from_taps", ["iifname vmap @sources", "drop"]),
        _chain(
            "prerouting", [f"iifname {names.taps} jump from_taps"], hook=_hook("prerouting", -310)
        ),
        _chain("input", [f"iifname {names.links} drop"], hook=_hook("input", -310)),
        _chain("output", [f"oifname {names.links} drop"], hook=_hook("output", -310)),
    ]


# --- the rules of a port --------------------------------------------------------------------


def _port_judges(slot: int, binding: Binding, policy: int) -> list[str]:
    marker = _port_marker(slot, binding)
    return [
        _chain(f"out_{slot}", _out_rules(slot, binding, policy), marker=marker),
        _chain(f"in_{slot}", _in_rules(slot, binding, policy), marker=marker),
    ]


def _stateful(slot: int, direction: str, policy: int) -> list[str]:
    passed = f"counter name {direction}_passed_{slot}"
    return [
        f"counter name {direction}_seen_{slot}",
        f"ct state established,related {passed} return",
        "ct state invalid drop",
        f"jump policy_{policy}_{direction}",
        f"{passed} return",
    ]


def _out_rules(slot: int, binding: Binding, policy: int) -> list[str]:
    spoofed = f"counter name spoofed_{slot} drop"
    targets = braces(f"0x{int(a):032x}" for a in own_addresses(binding)[1])
    v4_gateways = [g for g in binding.gateways if ":" not in g]
    servers = braces(["255.255.255.255", *v4_gateways])
    return [
        f"udp dport {{ 68, 546 }} {spoofed}",
        f"icmpv6 type {{ 134, 137 }} {spoofed}",
        f"icmpv6 type 136 @th,64,128 != {targets} {spoofed}",
        f"ip6 saddr :: icmpv6 type 135 @th,64,128 != {targets} {spoofed}",
        "icmpv6 type { 131, 132, 133, 135, 136, 143 } return",
        f"ip daddr {servers} udp sport 68 udp dport 67 return",
        "ip6 daddr ff02::1:2 udp sport 546 udp dport 547 return",
        *_stateful(slot, "out", policy),
    ]


def _in_rules(slot: int, binding: Binding, policy: int) -> list[str]:
    v4_gateways = [g for g in binding.gateways if ":" not in g]
    dhcp = [f"ip saddr {braces(v4_gateways)} udp sport 67 udp dport 68 return"]
    return [
        "ip6 hoplimit 255 icmpv6 type { 133, 134, 135, 136 } return",
        "icmpv6 type 130 return",
        *(dhcp if v4_gateways else []),
        "ip6 saddr fe80::/10 udp sport 547 udp dport 546 return",
        *_stateful(slot, "in", policy),
    ]


def _group_marks(ruleset: Ruleset) -> list[str]:
    """A chain a group that nothing jumps to: the record of its generation."""
    return [
        _chain(f"group_{number}", [], marker=f"group={g.id} generation={g.generation}")
        for number, g in enumerate(ruleset.groups, start=1)
    ]


# --- the ways through the tables ------------------------------------------------------------


def _towards(binding: Binding, last: Sequence[str]) -> list[str]:
    """Towards a guest: nothing that is meant for another, ARP, and IP as `last` says."""
    return [
        f"ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 ether daddr != {binding.mac} drop",
        "ether type arp return",
        "ether type != { ip, ip6 } drop",
        *last,
    ]


def _native_flow(ports: Sequence[tuple[int, Binding]], slots: Slots, names: Names) -> list[str]:
    towards = [
        _chain(f"towards_{slot}", _towards(b, [f"goto in_{slot}"]), marker=_port_marker(slot, b))
        for slot, b in ports
    ]
    return [
        *towards,
        _map("leave", "ifname : verdict", [f'"{b.device}" : goto out_{s}' for s, b in ports]),
        _map("arrive", "ifname : verdict", [f'"{b.device}" : goto towards_{s}' for s, b in ports]),
        _zones("meta ibrname", slots, names),
        _chain("leaving", ["ether type arp return", "iifname vmap @leave", "drop"]),
        _chain("arriving", ["oifname vmap @arrive", "drop"]),
        _chain(
            "forward",
            [f"iifname {names.taps} jump leaving", f"oifname {names.taps} jump arriving"],
            hook=_hook("forward", -310),
        ),
    ]


def _marking_flow(ports: Sequence[tuple[int, Binding]], names: Names) -> list[str]:
    """The bridge's half of `BR_NETFILTER`: marks before, and a look for the judgement after.

    Priority 100, since `br_netfilter` resumes the hook behind its own priority, 0.
    """
    leave = [
        _chain(f"leave_{slot}", [f"meta mark set 0x{slot << 16:08x} return"]) for slot, _ in ports
    ]
    towards = [
        _chain(
            f"towards_{slot}",
            _towards(b, [f"meta mark set meta mark or 0x{slot:x} return"]),
            marker=_port_marker(slot, b),
        )
        for slot, b in ports
    ]
    judged = ["ether type arp return", f"meta mark & 0x{JUDGED:x} == 0 drop", "meta mark set 0"]
    return [
        *leave,
        *towards,
        _map("leave", "ifname : verdict", [f'"{b.device}" : goto leave_{s}' for s, b in ports]),
        _map("arrive", "ifname : verdict", [f'"{b.device}" : goto towards_{s}' for s, b in ports]),
        _chain("leaving", ["ether type arp return", "iifname vmap @leave", "drop"]),
        _chain("arriving", ["oifname vmap @arrive", "drop"]),
        _chain("judged", judged),
        _chain(
            "forward",
            [
                f"iifname {names.links} meta mark set 0",
                f"oifname {names.taps} meta mark set 0",
                f"iifname {names.taps} jump leaving",
                f"oifname {names.taps} jump arriving",
            ],
            hook=_hook("forward", -310),
        ),
        _chain(
            "forwarded",
            [
                f"iifname {names.taps} goto judged",
                f"oifname {names.taps} goto judged",
            ],
            hook=_hook("forward", 100),
        ),
    ]


def _marked_flow(ports: Sequence[tuple[int, Binding]], slots: Slots, names: Names) -> list[str]:
    """The inet half of `BR_NETFILTER`. Here the links are the bridges."""
    leave = [f"0x{slot << 16:08x} : goto out_{slot}" for slot, _ in ports]
    arrive = [f"0x{slot:08x} : goto in_{slot}" for slot, _ in ports]
    return [
        _map("leave", "mark : verdict", leave),
        _map("arrive", "mark : verdict", arrive),
        _zones("iifname", slots, names),
        _chain("leaving", ["meta mark & 0x7fff0000 vmap @leave", "drop"]),
        _chain("arriving", ["meta mark & 0x00007fff vmap @arrive", "drop"]),
        _chain(
            "bridged",
            [
                "meta mark & 0x7fff0000 != 0 jump leaving",
                "meta mark & 0x00007fff != 0 jump arriving",
                f"meta mark set meta mark or 0x{JUDGED:x}",
            ],
        ),
        _chain("forward", [f"iifname {names.bridges} jump bridged"], hook=_hook("forward", 0)),
    ]


def _zones(key: str, slots: Slots, names: Names) -> str:
    """The conntrack zone of each network: other networks may use the same addresses."""
    zones = [f'"{names.bridge(vni)}" : {zone}' for vni, zone in sorted(slots.zones.items())]
    rules = [f"ct zone set {key} map {braces(zones)}"] if zones else []
    return _chain("zones", rules, hook=_hook("prerouting", -300))


def _host_side(names: Names) -> list[str]:
    """A tap that is on no bridge reaches this host's own stack: nothing passes there. And the
    tunnels' outer packets need no connection tracking."""
    outer = f"udp dport {VXLAN_PORT} notrack"
    return [
        _chain(
            "unbridged_in",
            [f"iifname {names.taps} drop", f"iifname != {names.bridges} {outer}"],
            hook=_hook("prerouting", -310),
        ),
        _chain(
            "unbridged_out",
            [f"oifname {names.taps} drop", outer],
            hook=_hook("output", -310),
        ),
    ]
