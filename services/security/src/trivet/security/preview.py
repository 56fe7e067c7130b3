"""Puts together what a preview needs: ports, the groups they stand behind, and the lists."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trivet.contracts.model import ResourceId
from trivet.contracts.network.port import Port
from trivet.contracts.security.evaluate import Lists, NamedRule, in_order
from trivet.contracts.security.group import GROUP_PREFIX, SET_PREFIX, SecurityGroup
from trivet.security.domain.preview import Stand
from trivet.security.parts import Parts


@dataclass(frozen=True)
class Scene:
    """The ports behind the group, by id; all ports by network; whom rules mean by names."""

    stands: dict[ResourceId, Stand]
    neighbours: dict[str, list[tuple[str, str]]]
    lists: Lists
    nodes: tuple[str, ...]


def scene(parts: Parts, ports: Sequence[Port], group: SecurityGroup, after: SecurityGroup) -> Scene:
    """The project's ports as the group is, and as it would be."""
    groups = {g.meta.name: g for g in parts.groups.list(group.meta.project)}
    changed = {**groups, group.meta.name: after}
    stands: dict[ResourceId, Stand] = {}
    neighbours: dict[str, list[tuple[str, str]]] = defaultdict(list)
    nodes: set[str] = set()
    for port in ports:
        neighbours[port.spec.network] += [(port.meta.name, a) for a in port.status.addresses]
        if group.meta.name not in port.spec.security_groups:
            continue
        names = port.spec.security_groups
        stands[port.meta.id] = Stand(
            name=port.meta.name,
            network=port.spec.network,
            addresses=port.status.addresses,
            before=_rules(groups[n] for n in names if n in groups),
            after=_rules(changed[n] for n in names if n in changed),
        )
        nodes |= {port.spec.node} if port.spec.node else set()
    return Scene(stands, neighbours, _lists(parts, ports, group.meta.project), tuple(sorted(nodes)))


def _rules(groups: Iterable[SecurityGroup]) -> list[NamedRule]:
    return in_order(
        NamedRule(g.meta.id, g.meta.project or "", g.meta.name, rule)
        for g in groups
        for rule in g.spec.rules
    )


def _lists(parts: Parts, ports: Sequence[Port], project: str | None) -> Lists:
    lists: dict[tuple[str, str], list[str]] = defaultdict(list)
    for port in ports:
        for name in port.spec.security_groups:
            lists[project or "", f"{GROUP_PREFIX}{name}"] += port.status.addresses
    for found in parts.address_sets.list(project):
        lists[project or "", f"{SET_PREFIX}{found.meta.name}"] += found.spec.addresses
    return lists
