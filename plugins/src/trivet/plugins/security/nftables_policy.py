"""From security groups to chains: which ports share one, and in how few rules.

A port's groups are tried as one list in order of priority, deny before allow among equals. So
what ports share is not the chain of a group but that of a *set* of groups, one a direction.

Few rules become one nft rule each, with a counter of its own. Many (`ONE_BY_ONE_MAX`) become
sets: within a run of rules that follow one another with the same action their order does not
matter, so all of a run's addresses, ports, and pairs of both are elements of a handful of sets
(`nftables_run`), and ten thousand rules cost a packet a few look-ups. Then nobody knows which
of them decided, so those are not counted.

Where rules come and go, what they become is changed, not made anew (`nftables_memory` says
which came and went); a new list of rules is one in which all of them came.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from itertools import groupby

from trivet.contracts.model import ResourceId
from trivet.contracts.security.evaluate import NamedRule, in_order, network
from trivet.contracts.security.group import Action, Direction
from trivet.plugins.security.nftables_run import Run
from trivet.plugins.security.nftables_text import Elements
from trivet.plugins.security.nftables_words import dport, merge_ports, protocol_match

ONE_BY_ONE_MAX = 128
LOG_GROUP = "$log"
LOG_RATE = "limit rate 5/second burst 10 packets"

PolicyKey = tuple[ResourceId, ...]

Level = tuple[int, bool]
"""A priority, and whether it is the allowing rules of it: rules in order of level are in order."""


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


def list_name(project: str, name: str, version: int) -> str:
    """The set of a list's addresses of one IP version."""
    return f"list{version}_{short(project, name)}"


class Way:
    """The rules of a set of groups in one direction, and the chain that they become."""

    def __init__(self, name: str, direction: Direction) -> None:
        self._name = name
        self._direction = direction
        self._levels: Counter[Level] = Counter()
        self._runs: list[Run] = []
        self._run_of: dict[Level, int] = {}
        self._logged: list[Counter[NamedRule]] = []
        self.made = self._one_by_one(())

    def change(
        self,
        gone: Sequence[NamedRule],
        come: Sequence[NamedRule],
        all_rules: Callable[[], Iterable[NamedRule]],
    ) -> None:
        """Some rules go and others come; `all_rules` are those that are there then."""
        gone = [r for r in gone if r.rule.direction is self._direction]
        come = [r for r in come if r.rule.direction is self._direction]
        if not gone and not come:
            return
        self._levels.subtract(map(_level, gone))
        self._levels.update(map(_level, come))
        levels = sorted(level for level, count in self._levels.items() if count)
        if sum(self._levels.values()) <= ONE_BY_ONE_MAX:
            self._run_of, self._runs = {}, []
            chosen = (r for r in all_rules() if r.rule.direction is self._direction)
            self.made = self._one_by_one(in_order(chosen))
            return
        run_of, actions = _runs_of(levels)
        if not self._fits(run_of, len(actions)):
            gone, come = [], [r for r in all_rules() if r.rule.direction is self._direction]
            self._runs = [self._run(number, action) for number, action in enumerate(actions)]
            self._logged = [Counter() for _ in actions]
            self._run_of = run_of
        for rules, by, where in ((gone, -1, self._run_of), (come, 1, run_of)):
            for named in rules:
                self._put(where[_level(named)], named, by)
        self._run_of = run_of
        self.made = self._in_runs()

    def _fits(self, run_of: Mapping[Level, int], runs: int) -> bool:
        """Whether the runs that there are are still those of the levels that both have."""
        common = self._run_of.keys() & run_of.keys()
        same = all(self._run_of[level] == run_of[level] for level in common)
        return same and len(self._runs) == runs and bool(common)

    def _run(self, number: int, action: Action) -> Run:
        return Run(f"{self._name}_{number}", action, self._direction, list_name)

    def _put(self, number: int, named: NamedRule, by: int) -> None:
        self._runs[number].change(named, by)
        if named.rule.log:
            self._logged[number][named] += by

    def _one_by_one(self, ordered: Sequence[NamedRule]) -> Policy:
        keys = {named.key: named for named in ordered}
        lines = [line for named in ordered for line in rule_lines(named, counted=True)]
        return self._policy(lines, keys, counters=frozenset(f"hit_{key}" for key in keys))

    def _in_runs(self) -> Policy:
        keys: dict[str, NamedRule] = {}
        lines: list[str] = []
        sets: dict[str, Elements] = {}
        for run, logged in zip(self._runs, self._logged, strict=True):
            there = {named.key: named for named, count in logged.items() if count}
            keys |= there
            lines += [line for _, named in sorted(there.items()) for line in log_lines(named)]
            of_run, its_sets = run.made()
            lines += of_run
            sets |= its_sets
        return self._policy(lines, keys, sets)

    def _policy(
        self,
        lines: Sequence[str],
        keys: Mapping[str, NamedRule],
        sets: Mapping[str, Elements] | None = None,
        counters: frozenset[str] = frozenset(),
    ) -> Policy:
        last = "drop" if self._direction is Direction.IN else "return"
        return Policy({self._name: (*lines, last)}, sets or {}, counters, keys)


def _level(named: NamedRule) -> Level:
    return named.rule.priority, named.rule.action is Action.ALLOW


def _runs_of(levels: Iterable[Level]) -> tuple[dict[Level, int], list[Action]]:
    """For each level, which run its rules are of; and the action of each run."""
    run_of: dict[Level, int] = {}
    actions: list[Action] = []
    for number, (allow, some) in enumerate(groupby(levels, key=lambda level: level[1])):
        actions.append(Action.ALLOW if allow else Action.DENY)
        run_of |= dict.fromkeys(some, number)
    return run_of, actions


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
