"""What a list of firewall rules decides of a new connection: pure, and the meaning of the rules.

Drivers compile the same rules into what a kernel understands; this says, one rule after the
other, what the outcome has to be. The fake firewall and the dry run ask it, and the real
firewall is measured against it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from trivet.contracts.model import ResourceId
from trivet.contracts.security.group import Action, Direction, Protocol, Rule

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
Lists = Mapping[tuple[str, str], Iterable[str]]
"""The networks behind `group:NAME` and `set:NAME`, by (project, that name)."""


@dataclass(frozen=True)
class Opening:
    """The first packet of a connection, as a port meets it: `remote` is the other side's
    address, `port` the destination's (0 where the protocol has none)."""

    direction: Direction
    protocol: Protocol
    remote: str
    port: int = 0


@dataclass(frozen=True)
class NamedRule:
    """A rule, and the group that it is of."""

    group: ResourceId
    project: str
    name: str
    rule: Rule

    @property
    def key(self) -> str:
        """The rule in 16 hex digits: the same as long as neither group nor rule changes."""
        text = f"{self.group} {self.rule.model_dump_json()}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Decision:
    """What was decided, by which rule; None: by the default of the direction."""

    action: Action
    by: NamedRule | None


def default_action(direction: Direction) -> Action:
    """What happens to what no rule names."""
    return Action.ALLOW if direction is Direction.OUT else Action.DENY


def in_order(rules: Iterable[NamedRule]) -> list[NamedRule]:
    """Rules in the order in which they are tried."""
    return sorted(rules, key=lambda r: (r.rule.priority, r.rule.action is Action.ALLOW))


def decide(ordered: Iterable[NamedRule], opening: Opening, lists: Lists) -> Decision:
    """The decision of rules that are in order."""
    for named in ordered:
        if matches(named, opening, lists):
            return Decision(named.rule.action, named)
    return Decision(default_action(opening.direction), None)


def matches(named: NamedRule, opening: Opening, lists: Lists) -> bool:
    """Whether the rule speaks of that connection."""
    rule = named.rule
    if rule.direction is not opening.direction:
        return False
    if rule.protocol not in (Protocol.ANY, opening.protocol):
        return False
    if rule.ports and not any(first <= opening.port <= last for first, last in spans(rule.ports)):
        return False
    if rule.remote is None:
        return True
    where = (rule.remote,) if rule.named is None else lists.get((named.project, rule.named), ())
    address = _address(opening.remote)
    return any(address in network(text) for text in where)


@lru_cache(maxsize=65536)
def network(text: str) -> Network:
    """A network from its text; host bits are refused."""
    return ip_network(text)


@lru_cache(maxsize=4096)
def _address(text: str) -> Address:
    return ip_address(text)


@lru_cache(maxsize=65536)
def spans(ports: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Port texts as (first, last)."""
    pairs = (text.partition("-") for text in ports)
    return tuple((int(first), int(last or first)) for first, _, last in pairs)
