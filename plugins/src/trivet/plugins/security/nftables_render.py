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

from collections.abc import Mapping
from dataclasses import dataclass, field

from trivet.contracts.security.evaluate import NamedRule
from trivet.contracts.security.firewall import Ruleset
from trivet.plugins.security.nftables_flow import host_side, marked_flow, marking_flow, native_flow
from trivet.plugins.security.nftables_guests import (
    bridge_entry,
    group_marks,
    port_judges,
    source_chain,
    taken_addresses,
    targets,
)
from trivet.plugins.security.nftables_memory import PolicyMemory, policies
from trivet.plugins.security.nftables_parts import (
    COUNTERS,
    FAMILY_ORDER,
    Mode,
    Names,
    Parts,
)
from trivet.plugins.security.nftables_policy import LOG_GROUP
from trivet.plugins.security.nftables_slots import Slots
from trivet.plugins.security.nftables_text import Elements, Tables, removal


@dataclass(frozen=True)
class Rendered:
    """The tables of a ruleset, and the rules that are counted or logged, by their key."""

    tables: Tables
    keys: Mapping[str, NamedRule] = field(default_factory=dict)


def render(
    ruleset: Ruleset, slots: Slots, mode: Mode, prefix: str, memory: PolicyMemory | None = None
) -> Rendered:
    """The tables that `ruleset` amounts to; `memory` of the last time makes it quicker."""
    names, memory = Names(prefix), memory or PolicyMemory()
    of_port, groups = policies(ruleset)
    ports = [(slots.ports[b.port], b) for b in ruleset.ports]
    judging = Parts()
    bridge, inet = Parts(), Parts()
    keys: dict[str, NamedRule] = {}
    taken = taken_addresses(ruleset, slots)
    for policy in memory.policies(groups, ruleset.lists):
        keys |= policy.keys
        judging.sets |= policy.sets
        judging.counters |= policy.counters
        for name, lines in policy.chains.items():
            judging.chain(name, [line.replace(LOG_GROUP, names.log_group) for line in lines])
    judging.sets |= memory.list_sets(ruleset.lists)
    for zone, addresses in taken.items():
        judging.sets[f"speakers_{zone}"] = targets(addresses)
    for slot, binding in ports:
        judging.counters |= {f"{what}_{slot}" for what in COUNTERS}
        port_judges(judging, slot, binding, of_port[binding.port], slots)
    group_marks(judging, ruleset)
    for zone, addresses in taken.items():
        bridge.sets[f"taken_{zone}"] = Elements("ipv6_addr", dict.fromkeys(addresses, ""))
    for slot, binding in ports:
        bridge.counters.add(f"l2_spoofed_{slot}")
        source_chain(bridge, slot, binding, slots.zones[binding.vni])
    bridge_entry(bridge, ports, names)
    host_side(inet, names)
    if mode is Mode.NATIVE:
        _take_over(bridge, judging)
        native_flow(bridge, ports, slots, names)
    else:
        _take_over(inet, judging)
        marking_flow(bridge, ports, names)
        marked_flow(inet, ports, slots, names)
    return Rendered({"bridge": bridge.table(), "inet": inet.table()}, keys)


def _take_over(parts: Parts, more: Parts) -> None:
    parts.chains |= more.chains
    parts.sets |= more.sets
    parts.counters |= more.counters


def remove_text(prefix: str) -> str:
    """What removes all tables of Trivet's, there or not."""
    return removal(FAMILY_ORDER, Names(prefix).table)
