"""From what the kernel lists back to what is in force.

The first rule of every chain says in its comment how many rules the chain has and whose they
are (`nftables_render`). A port is in force only if all of its chains are there, each with as
many rules as it says and the same generation, the maps lead to them, the base chains are whole, and
every set holds as much as was put into it; else it is left out, which reads as 'not protected'
and gets the whole ruleset applied again. So a flushed table, a deleted rule, an added one are
all seen.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from trivet.contracts.model import ResourceId
from trivet.contracts.security.evaluate import NamedRule
from trivet.contracts.security.firewall import FirewallState, PortCounters, RuleHits
from trivet.plugins.security.nftables_parts import CONTENTS, Mode, Names
from trivet.plugins.security.nftables_slots import Slots

BASE_CHAINS: Mapping[Mode, Mapping[str, frozenset[str]]] = {
    Mode.NATIVE: {
        "bridge": frozenset(
            [
                "from_taps",
                "prerouting",
                "input",
                "output",
                "zones",
                "leaving",
                "arriving",
                "forward",
                CONTENTS,
            ]
        ),
        "inet": frozenset({"unbridged_in", "unbridged_out", CONTENTS}),
    },
    Mode.BR_NETFILTER: {
        "bridge": frozenset(
            [
                "from_taps",
                "prerouting",
                "input",
                "output",
                "leaving",
                "arriving",
                "judged",
                "forward",
                "forwarded",
                CONTENTS,
            ]
        ),
        "inet": frozenset(
            [
                "zones",
                "leaving",
                "arriving",
                "bridged",
                "forward",
                "unbridged_in",
                "unbridged_out",
                CONTENTS,
            ]
        ),
    },
}


@dataclass
class _Chain:
    """A chain as listed: what its marker says, and how many rules it really has."""

    marker: dict[str, str] = field(default_factory=dict)
    rules: int = 0

    @property
    def whole(self) -> bool:
        return self.marker.get("rules") == str(self.rules)


@dataclass(frozen=True)
class Listing:
    """The tables of Trivet's as the kernel lists them."""

    chains: Mapping[tuple[str, str], _Chain]
    targets: Mapping[tuple[str, str], frozenset[str]]
    zones: Mapping[int, int]
    sizes: Mapping[tuple[str, str], int]
    contents: Mapping[tuple[str, str], int]

    @property
    def present(self) -> bool:
        """Whether any table is there."""
        return bool(self.chains)


def read(objects: Iterable[Mapping[str, Any]], prefix: str) -> Listing:
    """The listing in the objects of `nft -j list table`."""
    names = Names(prefix)
    chains: dict[tuple[str, str], _Chain] = defaultdict(_Chain)
    targets: dict[tuple[str, str], frozenset[str]] = {}
    sizes: dict[tuple[str, str], int] = {}
    contents: dict[tuple[str, str], int] = {}
    zones: dict[int, int] = {}
    for item in objects:
        if "chain" in item:
            chains[item["chain"]["family"], item["chain"]["name"]].rules += 0
        elif "rule" in item:
            rule = item["rule"]
            chain = chains[rule["family"], rule["chain"]]
            words = _words(rule.get("comment", ""))
            if chain.rules == 0:
                chain.marker = words
            elif rule["chain"] == CONTENTS and "set" in words:
                contents[rule["family"], words["set"]] = int(words["elements"])
            chain.rules += 1
            if rule["chain"] == "zones":
                zones.update(_zones(rule["expr"], names))
        elif "set" in item or "map" in item:
            found = item.get("map") or item["set"]
            where = found["family"], found["name"]
            sizes[where] = len(found.get("elem", ()))
            if "map" in item:
                pairs = [_pair(e) for e in found.get("elem", ())]
                targets[where] = frozenset(target for _, target in pairs)
    return Listing(chains, targets, zones, sizes, contents)


def slots_of(listing: Listing) -> Slots:
    """The numbers that are in use in the kernel."""
    ports = {
        ResourceId(c.marker["port"]): int(c.marker["slot"])
        for c in listing.chains.values()
        if "port" in c.marker and "slot" in c.marker
    }
    return Slots(ports=ports, zones=listing.zones)


def state_of(listing: Listing, mode: Mode) -> FirewallState:
    """What is in force; ports with anything missing are left out."""
    base = BASE_CHAINS[mode]
    wanted = [(family, name) for family, names in base.items() for name in names]
    if not all(key in listing.chains and listing.chains[key].whole for key in wanted):
        return FirewallState(mode=mode.value)
    policies = [c for (_, name), c in listing.chains.items() if name.startswith("policy_")]
    if not all(c.whole for c in policies) or listing.contents != listing.sizes:
        return FirewallState(mode=mode.value)
    ports = {
        port: generation
        for port, slot in slots_of(listing).ports.items()
        if (generation := _generation(listing, mode, port, slot)) is not None
    }
    groups = {
        ResourceId(c.marker["group"]): int(c.marker["generation"])
        for c in listing.chains.values()
        if "group" in c.marker and c.whole
    }
    return FirewallState(ports=ports, groups=groups, mode=mode.value)


def _generation(listing: Listing, mode: Mode, port: ResourceId, slot: int) -> int | None:
    judge = "bridge" if mode is Mode.NATIVE else "inet"
    names = [
        ("bridge", f"source_{slot}"),
        ("bridge", f"towards_{slot}"),
        (judge, f"out_{slot}"),
        (judge, f"in_{slot}"),
    ]
    if mode is Mode.BR_NETFILTER and not _whole(listing, ("bridge", f"leave_{slot}")):
        return None
    found = [listing.chains.get(name) for name in names]
    markers = [c.marker for c in found if c is not None and c.whole]
    if len(markers) != len(names) or any(m.get("port") != port for m in markers):
        return None
    if not _led_to(listing, mode, slot):
        return None
    generations = {m["generation"] for m in markers}
    return int(generations.pop()) if len(generations) == 1 else None


def _whole(listing: Listing, key: tuple[str, str]) -> bool:
    return key in listing.chains and listing.chains[key].whole


def _led_to(listing: Listing, mode: Mode, slot: int) -> bool:
    wanted = {
        ("bridge", "sources"): f"source_{slot}",
        ("bridge", "arrive"): f"towards_{slot}",
        ("bridge", "leave"): f"out_{slot}" if mode is Mode.NATIVE else f"leave_{slot}",
    }
    if mode is Mode.BR_NETFILTER:
        wanted |= {("inet", "leave"): f"out_{slot}", ("inet", "arrive"): f"in_{slot}"}
    return all(target in listing.targets.get(key, ()) for key, target in wanted.items())


def hits_of(
    objects: Iterable[Mapping[str, Any]], keys: Mapping[str, NamedRule]
) -> tuple[RuleHits, ...]:
    """How often each rule that is counted one by one decided."""
    found = {i["counter"]["name"]: i["counter"] for i in objects if "counter" in i}
    return tuple(
        RuleHits(
            group=named.group,
            rule=key,
            packets=int(found[f"hit_{key}"]["packets"]),
            bytes=int(found[f"hit_{key}"]["bytes"]),
        )
        for key, named in sorted(keys.items())
        if f"hit_{key}" in found
    )


def counters_of(objects: Iterable[Mapping[str, Any]], slots: Slots) -> tuple[PortCounters, ...]:
    """Each port's counters, from the objects of `nft -j list counters`."""
    packets = {
        item["counter"]["name"]: int(item["counter"]["packets"])
        for item in objects
        if "counter" in item
    }

    def of(what: str, slot: int) -> int:
        return packets.get(f"{what}_{slot}", 0)

    return tuple(
        PortCounters(
            port=port,
            spoofed_packets=of("spoofed", slot) + of("l2_spoofed", slot),
            denied_in_packets=max(0, of("in_seen", slot) - of("in_passed", slot)),
            denied_out_packets=max(0, of("out_seen", slot) - of("out_passed", slot)),
            allowed_in_packets=of("in_passed", slot),
            allowed_out_packets=of("out_passed", slot),
        )
        for port, slot in sorted(slots.ports.items())
    )


def _words(comment: str) -> dict[str, str]:
    pairs = (word.partition("=") for word in comment.split())
    return {key: value for key, sign, value in pairs if sign}


def _pair(element: Any) -> tuple[str, str]:
    """`["tvpabc", {"goto": {"target": "in_1"}}]` as device (or mark) and target."""
    key, verdict = element
    target = next(iter(verdict.values())) if isinstance(verdict, dict) else None
    return str(key), target["target"] if isinstance(target, dict) else ""


def _zones(expressions: Any, names: Names) -> dict[int, int]:
    """The networks and zones in `ct zone set ... map { "tvbr100" : 7 }`."""
    found: dict[int, int] = {}
    start = names.bridge(0).removesuffix("0")
    for expression in expressions:
        value = expression.get("mangle", {}).get("value", {})
        if "map" not in value:
            continue
        for bridge, zone in value["map"]["data"]["set"]:
            if str(bridge).removeprefix(start).isdecimal():
                found[int(str(bridge).removeprefix(start))] = int(zone)
    return found
