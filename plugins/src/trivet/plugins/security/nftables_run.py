"""A run of rules with one action as a few sets: the order within the run does not matter.

What a rule speaks of is a protocol, perhaps ports, perhaps a network. Rules of a run become:

* `any`: everything of a protocol (or of all): one rule, and nothing else of it is left to say;
* `p`: ports, whoever it is: a set of ranges a protocol;
* `a`, `h`: networks, and single hosts, whatever the port: a set a protocol and IP version;
* `q`, `x`: pairs of network and port range, and of single host and single port. Ranges of
  overlapping networks are cut so that no pair overlaps another, as the kernel demands. Networks
  are nested or apart, so what a network's ancestors have is known by a look at each prefix;
* lists (`group:`, `set:`): a rule each.

The sets' names depend on run, kind, protocol and version alone, so a rule more is an element
more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from trivet.contracts.security.evaluate import NamedRule, network, spans
from trivet.contracts.security.group import Action, Direction, Protocol
from trivet.plugins.security.nftables_text import Elements
from trivet.plugins.security.nftables_words import (
    Span,
    dport,
    merge_spans,
    protocol_match,
    span_text,
    without,
)

WHOLE: tuple[Span, ...] = ((0, 65535),)
ALL_PORTS = list(WHOLE)
WIDTHS = {4: 32, 6: 128}
ADDRESS_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
FAMILIES = {4: "ip", 6: "ip6"}

ListName = Callable[[str, str, int], str]

Prefix = tuple[int, int]
"""A network as its length and its first address: as numbers, since there are ten thousand."""


@lru_cache(maxsize=65536)
def prefix(text: str) -> tuple[int, Prefix]:
    """A network's IP version, and itself as numbers."""
    parsed = network(text)
    return parsed.version, (parsed.prefixlen, int(parsed.network_address))


@lru_cache(maxsize=65536)
def prefix_text(version: int, where: Prefix) -> str:
    """A network as nft writes it; a single host without its length."""
    length, first = where
    address = IPv4Address(first) if version == 4 else IPv6Address(first)
    return str(address) if length == WIDTHS[version] else f"{address}/{length}"


@dataclass
class Run:
    """The rules of a chain that the run became, and their sets."""

    lines: list[str] = field(default_factory=list)
    sets: dict[str, Elements] = field(default_factory=dict)


@dataclass
class _Sorted:
    """What the rules of one protocol speak of."""

    everything: bool = False
    ports: list[Span] = field(default_factory=list)
    networks: dict[int, dict[Prefix, list[Span]]] = field(default_factory=lambda: {4: {}, 6: {}})
    lists: dict[tuple[str, str], list[Span]] = field(default_factory=dict)


def compile_run(
    name: str,
    action: Action,
    direction: Direction,
    rules: Sequence[NamedRule],
    list_name: ListName,
) -> Run:
    """The chain's rules for a run; `name` begins the names of its sets."""
    verdict = "return" if action is Action.ALLOW else "drop"
    side = "saddr" if direction is Direction.IN else "daddr"
    run = Run()
    for protocol, found in _sort(rules).items():
        stem = f"{name}_{protocol.value}"
        what = " ".join(protocol_match(protocol))
        if found.everything:
            run.lines.append(" ".join([*([what] if what else []), verdict]))
            continue
        if found.ports:
            elements = _elements(span_text(s) for s in merge_spans(found.ports))
            run.sets[f"{stem}_p"] = Elements("inet_service", elements, interval=True)
            run.lines.append(f"{protocol.value} dport @{stem}_p {verdict}")
        for version, networks in found.networks.items():
            made = _network_sets(f"{stem}_{version}", version, networks)
            run.sets |= made
            for set_name, elements_of in made.items():
                run.lines.append(_set_rule(set_name, elements_of, version, side, protocol, verdict))
        for (project, listed), ports in sorted(found.lists.items()):
            match = _list_match(protocol, ports)
            for version, family in FAMILIES.items():
                whom = f"{family} {side} @{list_name(project, listed, version)}"
                run.lines.append(" ".join([whom, *match, verdict]))
    return run


def _sort(rules: Iterable[NamedRule]) -> dict[Protocol, _Sorted]:
    sorted_: dict[Protocol, _Sorted] = defaultdict(_Sorted)
    for named in rules:
        rule = named.rule
        of = sorted_[rule.protocol]
        ports = spans(rule.ports) if rule.ports else WHOLE
        if rule.remote is None:
            if rule.ports:
                of.ports.extend(ports)
            else:
                of.everything = True
        elif rule.named is not None:
            of.lists.setdefault((named.project, rule.named), []).extend(ports)
        else:
            version, where = prefix(rule.remote)
            found = of.networks[version].get(where)
            if found is None:
                of.networks[version][where] = list(ports)
            else:
                found.extend(ports)
    return dict(sorted(sorted_.items()))


def _network_sets(
    stem: str, version: int, networks: dict[Prefix, list[Span]]
) -> dict[str, Elements]:
    """The sets of networks and of pairs, those that are not empty."""
    type_, width = ADDRESS_TYPES[version], WIDTHS[version]
    whole, pairs = disjoint(networks, width)
    single: list[str] = []
    ranged: list[str] = []
    for where, span in pairs:
        exact = where[0] == width and span[0] == span[1]
        text = f"{prefix_text(version, where)} . {span_text(span)}"
        (single if exact else ranged).append(text)
    hosts = (prefix_text(version, n) for n in whole if n[0] == width)
    wider = (prefix_text(version, n) for n in whole if n[0] < width)
    made = {
        f"{stem}_h": Elements(type_, _elements(hosts)),
        f"{stem}_a": Elements(type_, _elements(wider), interval=True),
        f"{stem}_x": Elements(f"{type_} . inet_service", _elements(single)),
        f"{stem}_q": Elements(f"{type_} . inet_service", _elements(ranged), interval=True),
    }
    return {name: found for name, found in made.items() if found.elements}


def disjoint(
    networks: dict[Prefix, list[Span]], width: int
) -> tuple[list[Prefix], list[tuple[Prefix, Span]]]:
    """Networks with all ports, and pairs of network and ports, that say the same as `networks`
    (whose addresses have `width` bits) do and do not overlap. A network within a whole one is
    left out."""
    merged: dict[Prefix, list[Span]] = {}
    whole: list[Prefix] = []
    pairs: list[tuple[Prefix, Span]] = []
    lengths = sorted({length for length, _ in networks})
    for where in sorted(networks):
        length, first = where
        own = networks[where]
        wanted = merged[where] = own if len(own) == 1 else merge_spans(own)
        for wider in lengths:
            if wider >= length or not wanted:
                break
            shift = width - wider
            taken = merged.get((wider, first >> shift << shift))
            if taken is not None:
                wanted = without(wanted, taken)
        if wanted == ALL_PORTS:
            whole.append(where)
        else:
            pairs.extend((where, span) for span in wanted)
    return whole, pairs


def network_elements(version: int, texts: Iterable[str]) -> dict[str, str]:
    """The elements of a set of networks, without those that are within others."""
    found = {where: [WHOLE[0]] for v, where in map(prefix, texts) if v == version}
    whole, _ = disjoint(found, WIDTHS[version])
    return _elements(prefix_text(version, where) for where in whole)


def _set_rule(
    name: str, found: Elements, version: int, side: str, protocol: Protocol, verdict: str
) -> str:
    family = FAMILIES[version]
    if "inet_service" in found.type_:
        return f"{family} {side} . {protocol.value} dport @{name} {verdict}"
    return " ".join([f"{family} {side} @{name}", *protocol_match(protocol), verdict])


def _list_match(protocol: Protocol, ports: list[Span]) -> list[str]:
    merged = merge_spans(ports)
    if merged == ALL_PORTS:
        return protocol_match(protocol)
    return [dport(protocol, map(span_text, merged))]


def _elements(texts: Iterable[str]) -> dict[str, str]:
    return dict.fromkeys(texts, "")
