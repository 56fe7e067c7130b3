"""A run of rules with one action as a few sets: the order within the run does not matter.

What a rule speaks of is a protocol, perhaps ports, perhaps a network. Rules of a run become:

* `any`: everything of a protocol (or of all): one rule, and nothing else of it is left to say;
* `p`: ports, whoever it is: a set of ranges a protocol;
* `a`, `h`: networks, and single hosts, whatever the port: a set a protocol and IP version;
* `q`, `x`: pairs of network and port range, and of single host and single port, cut so that no
  pair overlaps another (`nftables_networks`);
* lists (`group:`, `set:`): a rule each.

The sets' names depend on run, kind, protocol and version alone, so a rule more is an element
more. Rules come and go one by one; what they don't concern is not made again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from trivet.contracts.security.evaluate import NamedRule, spans
from trivet.contracts.security.group import Action, Direction, Protocol
from trivet.plugins.security.nftables_networks import ALL_PORTS, WHOLE, Networks, prefix
from trivet.plugins.security.nftables_text import Elements
from trivet.plugins.security.nftables_words import (
    Span,
    dport,
    merge_spans,
    protocol_match,
    span_text,
)

FAMILIES = {4: "ip", 6: "ip6"}

ListName = Callable[[str, str, int], str]


@dataclass
class _Spoken:
    """What the rules of one protocol speak of, and how often. `everything` counts rules that
    name neither ports nor a network; `lists` are spans by project and name."""

    count: int = 0
    everything: int = 0
    ports: Counter[Span] = field(default_factory=Counter)
    networks: dict[int, Networks] = field(
        default_factory=lambda: {version: Networks(version) for version in FAMILIES}
    )
    lists: dict[tuple[str, str], Counter[Span]] = field(default_factory=dict)

    def change(self, named: NamedRule, by: int) -> None:
        """A rule comes (1) or goes (-1)."""
        rule, self.count = named.rule, self.count + by
        ports = spans(rule.ports) if rule.ports else WHOLE
        if rule.remote is None:
            if rule.ports:
                _count(self.ports, ports, by)
            else:
                self.everything += by
        elif rule.named is not None:
            whom = (named.project, rule.named)
            found = self.lists.setdefault(whom, Counter())
            _count(found, ports, by)
            if not found:
                del self.lists[whom]
        else:
            version, where = prefix(rule.remote)
            networks = self.networks[version]
            (networks.add if by > 0 else networks.remove)(where, ports)


def _count(found: Counter[Span], several: tuple[Span, ...], by: int) -> None:
    for span in several:
        found[span] += by
        if not found[span]:
            del found[span]


class Run:
    """The rules of a run, and what they become. `name` begins the names of its sets."""

    def __init__(
        self, name: str, action: Action, direction: Direction, list_name: ListName
    ) -> None:
        self._name = name
        self._verdict = "return" if action is Action.ALLOW else "drop"
        self._side = "saddr" if direction is Direction.IN else "daddr"
        self._list_name = list_name
        self._spoken: dict[Protocol, _Spoken] = {}

    def change(self, named: NamedRule, by: int) -> None:
        """A rule comes (1) or goes (-1)."""
        protocol = named.rule.protocol
        of = self._spoken.setdefault(protocol, _Spoken())
        of.change(named, by)
        if not of.count:
            del self._spoken[protocol]

    def made(self) -> tuple[list[str], dict[str, Elements]]:
        """The chain's rules for the run, and their sets."""
        lines: list[str] = []
        sets: dict[str, Elements] = {}
        for protocol, of in sorted(self._spoken.items()):
            stem = f"{self._name}_{protocol.value}"
            if of.everything:
                lines.append(" ".join([*protocol_match(protocol), self._verdict]))
                continue
            if of.ports:
                elements = dict.fromkeys(map(span_text, merge_spans(of.ports)), "")
                sets[f"{stem}_p"] = Elements("inet_service", elements, interval=True)
                lines.append(f"{protocol.value} dport @{stem}_p {self._verdict}")
            for version, networks in of.networks.items():
                for kind, found in networks.sets().items():
                    name = f"{stem}_{version}_{kind}"
                    sets[name] = found
                    lines.append(self._set_rule(name, found, version, protocol))
            lines += self._list_rules(of, protocol)
        return lines, sets

    def _set_rule(self, name: str, found: Elements, version: int, protocol: Protocol) -> str:
        family, side = FAMILIES[version], self._side
        if "inet_service" in found.type_:
            return f"{family} {side} . {protocol.value} dport @{name} {self._verdict}"
        match = [f"{family} {side} @{name}", *protocol_match(protocol), self._verdict]
        return " ".join(match)

    def _list_rules(self, of: _Spoken, protocol: Protocol) -> Iterator[str]:
        for (project, listed), ports in sorted(of.lists.items()):
            merged = merge_spans(ports)
            match = [dport(protocol, map(span_text, merged))]
            match = protocol_match(protocol) if merged == ALL_PORTS else match
            for version, family in FAMILIES.items():
                whom = f"{family} {self._side} @{self._list_name(project, listed, version)}"
                yield " ".join([whom, *match, self._verdict])
