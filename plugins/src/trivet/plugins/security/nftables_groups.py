"""From security groups to rules: which groups share a chain, in which order, in how few rules.

A port's groups are tried as one list in order of priority, deny before allow among equals. So
what is shared by ports is not the chain of a group but that of a *set* of groups. Rules that
differ only in whom they name, or only in their ports, become one rule with a set: ten thousand
addresses cost one look-up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from trivet.contracts.errors import REFERENCE, Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.security.firewall import Binding, GroupRules, Ruleset
from trivet.contracts.security.group import Action, Direction, Protocol, Rule

PolicyKey = tuple[ResourceId, ...]
_Head = tuple[int, Action, Protocol]


def policies(
    ruleset: Ruleset,
) -> tuple[dict[ResourceId, PolicyKey], dict[PolicyKey, tuple[Rule, ...]]]:
    """For each port the set of groups it stands behind, and for each set its rules, unordered.

    Raises `Refused(REFERENCE)` if a port names a group that the ruleset does not have.
    """
    by_name = {(g.project, g.name): g for g in ruleset.groups}
    of_port: dict[ResourceId, PolicyKey] = {}
    rules: dict[PolicyKey, tuple[Rule, ...]] = {}
    for binding in ruleset.ports:
        groups = _groups_of(binding, by_name)
        key = tuple(sorted({g.id for g in groups}))
        of_port[binding.port] = key
        if key not in rules:
            unique = {g.id: g for g in groups}
            rules[key] = tuple(rule for id_ in key for rule in unique[id_].rules)
    return of_port, rules


def _groups_of(
    binding: Binding, by_name: Mapping[tuple[str, str], GroupRules]
) -> tuple[GroupRules, ...]:
    missing = [n for n in binding.security_groups if (binding.project, n) not in by_name]
    if missing:
        raise Refused(
            REFERENCE,
            f"port {binding.port} names security group {missing[0]}, which the ruleset lacks",
        )
    return tuple(by_name[binding.project, n] for n in binding.security_groups)


def render_policy(rules: Iterable[Rule], direction: Direction) -> list[str]:
    """The nft rules of one direction: `return` allows, `drop` denies; the end is the default."""
    by_head: dict[_Head, dict[tuple[str, ...], list[str | None]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for rule in rules:
        if rule.direction is direction:
            head = (rule.priority, rule.action, rule.protocol)
            by_head[head][tuple(sorted(set(rule.ports)))].append(rule.remote)
    lines: list[str] = []
    for head in sorted(by_head, key=lambda h: (h[0], h[1] is Action.ALLOW, h[2])):
        for ports, remotes in _merge(by_head[head]):
            lines.extend(_render(head, ports, remotes, direction))
    return [*lines, "drop" if direction is Direction.IN else "return"]


def _merge(
    by_ports: Mapping[tuple[str, ...], list[str | None]],
) -> list[tuple[tuple[str, ...], frozenset[str | None]]]:
    """Rules that name the same remotes become one with all of their ports."""
    by_remotes: dict[frozenset[str | None], set[tuple[str, ...]]] = defaultdict(set)
    for ports, remotes in by_ports.items():
        # A rule for everybody makes the same rule for somebody superfluous.
        who: frozenset[str | None] = frozenset([None] if None in remotes else remotes)
        by_remotes[who].add(ports)
    merged = []
    for who, sets in by_remotes.items():
        all_ports = () if () in sets else tuple(sorted({p for ports in sets for p in ports}))
        merged.append((all_ports, who))
    return sorted(merged, key=lambda m: (m[0], sorted(r or "" for r in m[1])))


def _render(
    head: _Head, ports: tuple[str, ...], remotes: frozenset[str | None], direction: Direction
) -> list[str]:
    _, action, protocol = head
    match = {
        Protocol.ANY: [],
        Protocol.ICMP: ["meta l4proto { icmp, ipv6-icmp }"],
        Protocol.TCP: ["meta l4proto tcp"],
        Protocol.UDP: ["meta l4proto udp"],
    }[protocol]
    if ports:
        match = [f"{protocol.value} dport {braces(merge_ports(ports))}"]
    verdict = "return" if action is Action.ALLOW else "drop"
    if None in remotes:
        return [" ".join([*match, verdict])]
    field = "saddr" if direction is Direction.IN else "daddr"
    networks = [ip_network(r) for r in remotes if r is not None]
    v4 = collapse_addresses(n for n in networks if isinstance(n, IPv4Network))
    v6 = collapse_addresses(n for n in networks if isinstance(n, IPv6Network))
    lines = []
    for family, found in (("ip", [str(n) for n in v4]), ("ip6", [str(n) for n in v6])):
        if found:
            lines.append(" ".join([f"{family} {field} {braces(found)}", *match, verdict]))
    return lines


def merge_ports(ports: Iterable[str]) -> list[str]:
    """Ports and ranges as few ranges that do not touch (nft refuses overlapping ones)."""
    spans = sorted((int(p.split("-")[0]), int(p.split("-")[-1])) for p in ports)
    merged: list[tuple[int, int]] = []
    for first, last in spans:
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return [f"{a}" if a == b else f"{a}-{b}" for a, b in merged]


def braces(items: Iterable[str]) -> str:
    """An anonymous set."""
    return "{ " + ", ".join(items) + " }"
