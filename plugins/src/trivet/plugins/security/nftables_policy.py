"""From security groups to chains: which ports share one, and in how few rules.

A port's groups are tried as one list in order of priority, deny before allow among equals. So
what ports share is not the chain of a group but that of a *set* of groups, one a direction.

Few rules become one nft rule each, with a counter of its own. Many (`ONE_BY_ONE_MAX`) become
sets: within a run of rules that follow one another with the same action their order does not
matter, so all of a run's addresses, ports, and pairs of both are elements of a handful of sets
(`nftables_run`), and ten thousand rules cost a packet a few look-ups. Then nobody knows which
of them decided, so those are not counted.

Lists (`group:web`, `set:bad`) are sets of the table that every chain which names them shares,
so that a port that comes or goes changes one element.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from itertools import groupby

from trivet.contracts.errors import REFERENCE, Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.security.evaluate import NamedRule, in_order, network
from trivet.contracts.security.firewall import AddressList, Binding, GroupRules, Ruleset
from trivet.contracts.security.group import Action, Direction, Rule
from trivet.plugins.security.nftables_run import ADDRESS_TYPES, compile_run, network_elements
from trivet.plugins.security.nftables_text import Elements
from trivet.plugins.security.nftables_words import dport, merge_ports, protocol_match

ONE_BY_ONE_MAX = 128
LOG_GROUP = "$log"
LOG_RATE = "limit rate 5/second burst 10 packets"

PolicyKey = tuple[ResourceId, ...]


@dataclass(frozen=True)
class Policy:
    """What ports behind one set of groups have in common: a chain a direction, and the sets
    and counters that those use. `keys` are the rules that are counted or logged."""

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sets: Mapping[str, Elements] = field(default_factory=dict)
    counters: frozenset[str] = frozenset()
    keys: Mapping[str, NamedRule] = field(default_factory=dict)


def short(*words: str) -> str:
    """A name made of digits that are the same for the same words."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]


def policy_name(key: PolicyKey, direction: Direction) -> str:
    """The chain of a set of groups in one direction."""
    return f"policy_{short(*key)}_{direction.value}"


def policies(
    ruleset: Ruleset,
) -> tuple[dict[ResourceId, PolicyKey], dict[PolicyKey, tuple[NamedRule, ...]]]:
    """For each port the set of groups it stands behind, and for each set its rules in order.

    Raises `Refused(REFERENCE)` if a port names a group, or a rule a list, that the ruleset
    does not have.
    """
    by_name = {(g.project, g.name): g for g in ruleset.groups}
    lists = {(found.project, found.name) for found in ruleset.lists}
    of_port: dict[ResourceId, PolicyKey] = {}
    rules: dict[PolicyKey, tuple[NamedRule, ...]] = {}
    for binding in ruleset.ports:
        groups = {g.id: g for g in _groups_of(binding, by_name)}
        key = tuple(sorted(groups))
        of_port[binding.port] = key
        if key not in rules:
            named = [_named(groups[id_], rule) for id_ in key for rule in groups[id_].rules]
            _check_lists(named, lists)
            rules[key] = tuple(in_order(named))
    return of_port, rules


def _named(group: GroupRules, rule: Rule) -> NamedRule:
    return NamedRule(group.id, group.project, group.name, rule)


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


def _check_lists(rules: Iterable[NamedRule], lists: set[tuple[str, str]]) -> None:
    for named in rules:
        if named.rule.named is not None and (named.project, named.rule.named) not in lists:
            detail = f"group {named.name} names {named.rule.named}, which the ruleset lacks"
            raise Refused(REFERENCE, detail)


# --- lists ----------------------------------------------------------------------------------


def list_name(project: str, name: str, version: int) -> str:
    """The set of a list's addresses of one IP version."""
    return f"list{version}_{short(project, name)}"


def list_sets(lists: Iterable[AddressList]) -> dict[str, Elements]:
    """The sets of all lists; both versions always, so that rules can name them."""
    sets: dict[str, Elements] = {}
    for found in lists:
        for version, type_ in ADDRESS_TYPES.items():
            name = list_name(found.project, found.name, version)
            elements = network_elements(version, found.addresses)
            sets[name] = Elements(type_, elements, interval=True)
    return sets


class PolicyMemory:
    """Compiles policies, and remembers those of the last time: a ruleset in which one group
    changed costs the compiling of that one's."""

    def __init__(self) -> None:
        self._known: dict[PolicyKey, tuple[tuple[NamedRule, ...], Policy]] = {}

    def __call__(self, key: PolicyKey, rules: Sequence[NamedRule]) -> Policy:
        """The policy of these rules, which are in order."""
        asked = tuple(rules)
        known = self._known.get(key)
        if known is not None and known[0] == asked:
            return known[1]
        made = compile_policy(key, asked)
        self._known[key] = (asked, made)
        return made

    def forget_but(self, keys: Iterable[PolicyKey]) -> None:
        """Keep those alone."""
        wanted = set(keys)
        self._known = {k: v for k, v in self._known.items() if k in wanted}


# --- policies -------------------------------------------------------------------------------


def compile_policy(key: PolicyKey, rules: Sequence[NamedRule]) -> Policy:
    """The chains of a set of groups whose rules are in order."""
    chains: dict[str, tuple[str, ...]] = {}
    sets: dict[str, Elements] = {}
    counters: set[str] = set()
    keys: dict[str, NamedRule] = {}
    for direction in Direction:
        chosen = [r for r in rules if r.rule.direction is direction]
        name = policy_name(key, direction)
        lines: list[str] = []
        if len(chosen) <= ONE_BY_ONE_MAX:
            for named in chosen:
                counters.add(f"hit_{named.key}")
                keys[named.key] = named
                lines += rule_lines(named, counted=True)
        else:
            runs = groupby(chosen, key=lambda r: r.rule.action)
            for number, (action, some) in enumerate(runs):
                run = list(some)
                for named in run:
                    if named.rule.log:
                        keys[named.key] = named
                        lines += log_lines(named)
                made = compile_run(f"{name}_{number}", action, direction, run, list_name)
                lines += made.lines
                sets |= made.sets
        chains[name] = (*lines, "drop" if direction is Direction.IN else "return")
    return Policy(chains, sets, frozenset(counters), keys)


def rule_lines(named: NamedRule, *, counted: bool) -> list[str]:
    """The nft rules of one rule: `return` allows, `drop` denies."""
    verdict = "return" if named.rule.action is Action.ALLOW else "drop"
    counter = f"counter name hit_{named.key} " if counted else ""
    ends = [f"{counter}{verdict}"]
    return [*log_lines(named), *(" ".join([*m, e]) for m in matches(named) for e in ends)]


def log_lines(named: NamedRule) -> list[str]:
    """What tells a few of the packets that the rule decides on; none if it has no `log`."""
    if not named.rule.log:
        return []
    prefix = f'log prefix "{named.key} {named.rule.direction.value}" group {LOG_GROUP}'
    return [" ".join([*match, LOG_RATE, prefix]) for match in matches(named)]


def matches(named: NamedRule) -> list[list[str]]:
    """What a rule speaks of, in words of nft; a list of names speaks of two IP versions."""
    rule = named.rule
    what = [dport(rule.protocol, merge_ports(rule.ports))] if rule.ports else []
    what = what or protocol_match(rule.protocol)
    side = "saddr" if rule.direction is Direction.IN else "daddr"
    if rule.remote is None:
        return [what]
    if rule.named is not None:
        return [
            [f"{family} {side} @{list_name(named.project, rule.named, version)}", *what]
            for version, family in ((4, "ip"), (6, "ip6"))
        ]
    family = "ip" if isinstance(network(rule.remote), IPv4Network) else "ip6"
    return [[f"{family} {side} {rule.remote}", *what]]
