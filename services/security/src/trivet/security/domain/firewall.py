"""Which rules a node's firewall must hold: from the ports plugged there and the groups of all
projects to one ruleset.

A port that can't be protected as asked is left out, with the reason: it then passes nothing,
which is the only safe answer to a rule that is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from trivet.contracts.model import ResourceId
from trivet.contracts.security.firewall import (
    AddressList,
    Binding,
    FirewallState,
    GroupRules,
    Ruleset,
)
from trivet.contracts.security.group import Action, SecurityGroup, SecurityGroupSpec

GroupKey = tuple[str, str]
ListKey = tuple[str, str]
Lists = Mapping[ListKey, AddressList]


@dataclass(frozen=True)
class Assembled:
    """The ruleset, and why ports are missing from it."""

    ruleset: Ruleset
    reasons: Mapping[ResourceId, str]

    @property
    def protected(self) -> dict[ResourceId, int]:
        """The generation of each port in the ruleset."""
        return {b.port: b.generation for b in self.ruleset.ports}


@dataclass(frozen=True)
class Reading:
    """A group's rules in order, and the lists that they name."""

    rules: GroupRules
    names: frozenset[ListKey]


Read = Callable[[SecurityGroup], Reading]


def read_group(group: SecurityGroup) -> Reading:
    """What the firewall is to know of a group."""
    ordered = sorted(group.spec.rules, key=lambda r: (r.priority, r.action is Action.ALLOW))
    project = group.meta.project or ""
    rules = GroupRules(
        id=group.meta.id,
        project=project,
        name=group.meta.name,
        generation=group.meta.generation,
        rules=tuple(ordered),
    )
    named = {rule.named for rule in group.spec.rules if rule.remote is not None}
    return Reading(rules, frozenset((project, name) for name in named if name is not None))


class Readings:
    """Reads groups, and remembers what it read of those that have not changed since: one may
    have ten thousand rules."""

    def __init__(self) -> None:
        self._known: dict[ResourceId, tuple[SecurityGroupSpec, Reading]] = {}

    def __call__(self, group: SecurityGroup) -> Reading:
        """As `read_group`."""
        spec, generation = group.spec, group.meta.generation
        known = self._known.get(group.meta.id)
        if known is not None and known[0] is spec and known[1].rules.generation == generation:
            return known[1]
        made = read_group(group)
        self._known[group.meta.id] = spec, made
        return made

    def keep(self, groups: Iterable[SecurityGroup]) -> None:
        """Forget all others."""
        there = {group.meta.id for group in groups}
        self._known = {id_: known for id_, known in self._known.items() if id_ in there}


def assemble(
    bindings: Iterable[Binding],
    groups: Mapping[GroupKey, SecurityGroup],
    lists: Lists,
    read: Read = read_group,
) -> Assembled:
    """The ruleset for these ports, the same for the same input in whatever order."""
    ports: list[Binding] = []
    reasons: dict[ResourceId, str] = {}
    used: dict[GroupKey, SecurityGroup] = {}
    devices: dict[str, ResourceId] = {}
    for binding in sorted(bindings, key=lambda b: (b.port, -b.generation)):
        reason = _unfit(binding, groups, lists, devices, read)
        if reason is not None:
            reasons.setdefault(binding.port, reason)
            continue
        devices[binding.device] = binding.port
        ports.append(binding)
        used |= {k: groups[k] for k in group_keys([binding])}
    ruleset = Ruleset(
        ports=tuple(ports),
        groups=tuple(read(used[key]).rules for key in sorted(used)),
        lists=tuple(lists[key] for key in sorted(list_keys(used.values(), read))),
    )
    return Assembled(ruleset, reasons)


def group_keys(bindings: Iterable[Binding]) -> set[GroupKey]:
    """The groups that ports name."""
    return {(b.project, name) for b in bindings for name in b.security_groups}


def list_keys(groups: Iterable[SecurityGroup], read: Read = read_group) -> set[ListKey]:
    """The lists that the rules of groups name, by project and name (`group:web`, `set:bad`)."""
    return {key for group in groups for key in read(group).names}


def _unfit(
    binding: Binding,
    groups: Mapping[GroupKey, SecurityGroup],
    lists: Lists,
    devices: Mapping[str, ResourceId],
    read: Read,
) -> str | None:
    missing = sorted(
        name for project, name in group_keys([binding]) if (project, name) not in groups
    )
    if missing:
        return f"there is no security group {missing[0]} in project {binding.project}"
    behind = (groups[key] for key in group_keys([binding]))
    unknown = sorted(list_keys(behind, read) - lists.keys())
    if unknown:
        return f"a rule names {unknown[0][1]}, which is not in project {binding.project}"
    if binding.device in devices:
        return f"device {binding.device} is port {devices[binding.device]}'s"
    return None


def drifted(wanted: Ruleset, state: FirewallState) -> bool:
    """Whether what is in force is not what is wanted."""
    ports = {b.port: b.generation for b in wanted.ports}
    groups = {g.id: g.generation for g in wanted.groups}
    return state.ports != ports or state.groups != groups
