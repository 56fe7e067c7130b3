"""What was compiled the last time, so that the next time costs what changed.

Of ten thousand rules one changes, and ten thousand neither are looked at one by one nor become
sets anew: a group's rules are compared with those of the last time (`changes`), and those that
went or came are taken out of, or put into, what the others became. A memory that knows nothing
compiles from the ground up, by the same code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from trivet.contracts.errors import REFERENCE, Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.security.evaluate import NamedRule
from trivet.contracts.security.firewall import AddressList, Binding, GroupRules, Ruleset
from trivet.contracts.security.group import Direction, Rule
from trivet.plugins.security.nftables_networks import ListSets
from trivet.plugins.security.nftables_policy import Policy, PolicyKey, Way, list_name, policy_name
from trivet.plugins.security.nftables_text import Elements

Rules = tuple[Rule, ...]
Changes = tuple[Sequence[Rule], Sequence[Rule]]
"""The rules that went, and those that came."""

Groups = tuple[GroupRules, ...]


def policies(ruleset: Ruleset) -> tuple[dict[ResourceId, PolicyKey], dict[PolicyKey, Groups]]:
    """For each port the set of groups it stands behind, and for each set its groups.

    Raises `Refused(REFERENCE)` if a port names a group that the ruleset does not have.
    """
    by_name = {(g.project, g.name): g for g in ruleset.groups}
    of_port: dict[ResourceId, PolicyKey] = {}
    groups: dict[PolicyKey, Groups] = {}
    for binding in ruleset.ports:
        found = {g.id: g for g in _groups_of(binding, by_name)}
        key = tuple(sorted(found))
        of_port[binding.port] = key
        groups[key] = tuple(found[id_] for id_ in key)
    return of_port, groups


def _groups_of(binding: Binding, by_name: Mapping[tuple[str, str], GroupRules]) -> Groups:
    missing = [n for n in binding.security_groups if (binding.project, n) not in by_name]
    if missing:
        raise Refused(
            REFERENCE,
            f"port {binding.port} names security group {missing[0]}, which the ruleset lacks",
        )
    return tuple(by_name[binding.project, n] for n in binding.security_groups)


class PolicyMemory:
    """Compiles rulesets' policies and lists, and remembers those of the last one."""

    def __init__(self) -> None:
        self._policies: dict[PolicyKey, _Remembered] = {}
        self._lists: dict[tuple[str, str], ListSets] = {}
        self._changes: dict[ResourceId, tuple[Rules, Rules, Changes]] = {}

    def policies(
        self, wanted: Mapping[PolicyKey, Groups], lists: Iterable[AddressList]
    ) -> list[Policy]:
        """The policies of these sets of groups; others are forgotten.

        Raises `Refused(REFERENCE)` if a rule names a list that is not among `lists`.
        """
        known = {(found.project, found.name) for found in lists}
        old, self._policies = self._policies, {}
        made: list[Policy] = []
        for key, groups in wanted.items():
            # What fails half-way is not remembered.
            remembered = old.pop(key, None) or _Remembered(key)
            remembered.take(groups, self._changes_of)
            for project, name in remembered.names - known:
                detail = f"a rule of {', '.join(g.name for g in groups)} names {name}"
                raise Refused(REFERENCE, f"{detail}, which the ruleset of {project} lacks")
            self._policies[key] = remembered
            made += remembered.made()
        self._changes.clear()
        return made

    def list_sets(self, lists: Iterable[AddressList]) -> dict[str, Elements]:
        """The sets of all lists; both IP versions always, so that rules can name them."""
        old, self._lists = self._lists, {}
        sets: dict[str, Elements] = {}
        for found in lists:
            where = found.project, found.name
            remembered = old.pop(where, None) or ListSets()
            for version, elements in remembered.of(found.addresses).items():
                sets[list_name(*where, version)] = elements
            self._lists[where] = remembered
        return sets

    def _changes_of(self, group: ResourceId, before: Rules, after: Rules) -> Changes:
        """As `changes`, computed once for all policies that the group is part of."""
        known = self._changes.get(group)
        if known is None or known[0] is not before or known[1] is not after:
            known = before, after, changes(before, after)
            self._changes[group] = known
        return known[2]


class _Remembered:
    """What the rules of a set of groups have become."""

    def __init__(self, key: PolicyKey) -> None:
        self._ways = [Way(policy_name(key, d), d) for d in Direction]
        self._rules: dict[ResourceId, Rules] = {}
        self._names: Counter[tuple[str, str]] = Counter()

    @property
    def names(self) -> set[tuple[str, str]]:
        """The lists that rules name, by project and name."""
        return {name for name, count in self._names.items() if count}

    def take(
        self, groups: Groups, changes_of: Callable[[ResourceId, Rules, Rules], Changes]
    ) -> None:
        """The groups have these rules now."""
        for group in groups:
            before = self._rules.get(group.id, ())
            if before is group.rules:
                continue
            gone, come = (
                [_named(group, rule) for rule in some]
                for some in changes_of(group.id, before, group.rules)
            )
            self._rules[group.id] = group.rules
            for named, by in (*((n, -1) for n in gone), *((n, 1) for n in come)):
                if named.rule.named is not None:
                    self._names[named.project, named.rule.named] += by
            for way in self._ways:
                way.change(gone, come, partial(self._all, groups))

    def made(self) -> Iterator[Policy]:
        """A part for each direction."""
        return (way.made for way in self._ways)

    def _all(self, groups: Groups) -> Iterator[NamedRule]:
        """All rules as far as they are taken in."""
        return (_named(g, rule) for g in groups for rule in self._rules.get(g.id, ()))


def _named(group: GroupRules, rule: Rule) -> NamedRule:
    return NamedRule(group.id, group.project, group.name, rule)


def changes(before: Rules, after: Rules) -> Changes:
    """Which rules of `before` are not in `after`, and the other way round; as often as they are
    there, whatever their order."""
    shorter = min(len(before), len(after))
    first = next((n for n in range(shorter) if not _alike(before[n], after[n])), shorter)
    last = 0
    while last < shorter - first and _alike(before[-1 - last], after[-1 - last]):
        last += 1
    old, new = (some[first : len(some) - last] for some in (before, after))
    if len(old) == len(new):
        pairs = [(a, b) for a, b in zip(old, new, strict=True) if not _alike(a, b)]
        old, new = tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
    if not old or not new:
        return old, new
    left, more = Counter(old), Counter(new)
    return list((left - more).elements()), list((more - left).elements())


def _alike(one: Rule, other: Rule) -> bool:
    return one is other or one == other
