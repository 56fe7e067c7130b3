"""What a change of rules would do, without doing it: verdicts before and after, compared.

All that rules can tell apart is where their networks and port ranges begin and end. So it is
enough to try one address of each network that a rule names, the other ports themselves, and
somebody whom none names; and of each range between two boundaries one port. What is found is
joined to ranges again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from trivet.contracts.security.evaluate import (
    Decision,
    Lists,
    NamedRule,
    Opening,
    decide,
    in_order,
    network,
    spans,
)
from trivet.contracts.security.group import Direction, Protocol, Rule

LAST_PORT = 65535
ELSEWHERE = {4: "anywhere else", 6: "anywhere else (v6)"}
NOBODY = {4: "192.0.2.254", 6: "2001:db8:ffff::fffe"}
"""Addresses for documentation: what no rule names in earnest."""
TRIES_MAX = 200_000

Rules = Sequence[NamedRule]


@dataclass(frozen=True)
class Stand:
    """A port, and the rules of all groups that it stands behind, before and after, in order."""

    name: str
    network: str
    addresses: tuple[str, ...]
    before: Rules
    after: Rules


@dataclass(frozen=True)
class Change:
    """A kind of connection that is decided otherwise; `ports` (first, last) or None."""

    stand: Stand
    direction: Direction
    protocol: Protocol
    remote: str
    ports: tuple[tuple[int, int], ...]
    before: Decision
    after: Decision


@dataclass(frozen=True)
class Found:
    """The changes, and whether all was looked at."""

    changes: tuple[Change, ...]
    complete: bool


def judged(
    stand: Stand, opening: Opening, lists: Lists, lists_after: Lists
) -> tuple[Decision, Decision]:
    """The decision before and after."""
    return decide(stand.before, opening, lists), decide(stand.after, opening, lists_after)


def reach(
    stands: Sequence[Stand],
    neighbours: Mapping[str, Sequence[tuple[str, str]]],
    lists: Lists,
    lists_after: Lists,
) -> Found:
    """Whom the change concerns at these ports. `neighbours` are, by network, the (name,
    address) of the ports there."""
    changes: list[Change] = []
    tries = 0
    for stand in stands:
        if in_order(stand.before) == in_order(stand.after) and lists == lists_after:
            continue
        rules = [*stand.before, *stand.after]
        for direction in Direction:
            relevant = [named.rule for named in rules if named.rule.direction is direction]
            if not relevant:
                continue
            remotes = list(_remotes(stand, neighbours, relevant))
            for protocol, ranges in _classes(relevant):
                tries += len(remotes) * len(ranges)
                if tries > TRIES_MAX:
                    return Found(tuple(changes), complete=False)
                for name, address in remotes:
                    changes += _compared(
                        stand, direction, protocol, name, address, ranges, lists, lists_after
                    )
    return Found(tuple(changes), complete=True)


def _compared(
    stand: Stand,
    direction: Direction,
    protocol: Protocol,
    remote: str,
    address: str,
    ranges: Sequence[tuple[int, int]],
    lists: Lists,
    lists_after: Lists,
) -> list[Change]:
    """The changes of one remote: ranges of the same outcome are one."""
    by_outcome: dict[tuple[Decision, Decision], list[tuple[int, int]]] = {}
    for first, last in ranges:
        opening = Opening(direction, protocol, address, first)
        before, after = judged(stand, opening, lists, lists_after)
        if before.action is not after.action:
            found = by_outcome.setdefault((before, after), [])
            if found and found[-1][1] + 1 == first:
                found[-1] = (found[-1][0], last)
            else:
                found.append((first, last))
    no_ports = protocol not in (Protocol.TCP, Protocol.UDP)
    return [
        Change(stand, direction, protocol, remote, () if no_ports else tuple(p), before, after)
        for (before, after), p in by_outcome.items()
    ]


def _remotes(
    stand: Stand,
    neighbours: Mapping[str, Sequence[tuple[str, str]]],
    rules: Iterable[Rule],
) -> Iterator[tuple[str, str]]:
    """Names and addresses to try: the other ports, each named network, and nobody."""
    versions = {ip_address(a).version for a in stand.addresses} or {4}
    for name, address in neighbours.get(stand.network, ()):
        if name != stand.name and ip_address(address).version in versions:
            yield name, address
    named = {r.remote for r in rules if r.remote is not None and r.named is None}
    for text in sorted(named):
        where = network(text)
        if where.version in versions:
            yield text, str(where.network_address)
    for version in sorted(versions):
        yield ELSEWHERE[version], NOBODY[version]


def _classes(rules: Sequence[Rule]) -> Iterator[tuple[Protocol, list[tuple[int, int]]]]:
    """Of each protocol the ranges of ports that rules can't tell apart within."""
    for protocol in (Protocol.TCP, Protocol.UDP, Protocol.ICMP):
        meant = [r for r in rules if r.protocol in (protocol, Protocol.ANY)]
        if not meant:
            continue
        if protocol is Protocol.ICMP:
            yield protocol, [(0, 0)]
            continue
        starts = {1}
        for rule in meant:
            for first, last in spans(rule.ports):
                starts |= {first, last + 1}
        ordered = sorted(s for s in starts if s <= LAST_PORT)
        ends = [*(s - 1 for s in ordered[1:]), LAST_PORT]
        yield protocol, list(zip(ordered, ends, strict=True))
