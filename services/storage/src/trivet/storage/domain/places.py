"""Hosts and disks as the leader knows them: what may be put there, and what is to go from there.

What is not known of reads as usable, for a node's word comes later than its volumes; what is not
heard from is `silent`, which never means that its data are gone. Only three things are certain:
a node that was removed from the cluster, a disk that was found failed, and a replica that its own
node, with the disk at hand, does not find.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from trivet.contracts.storage.disk import Disk, DiskHealth
from trivet.contracts.storage.pool import Pool, PoolUsage
from trivet.storage.domain.pools import is_full


@dataclass(frozen=True)
class NodeView:
    """A node. `silent_s`: for how long nothing was heard of it (0: it is heard). `maintenance`:
    takes nothing new; `empties`: what it has is moved away; `gone`: it was removed."""

    silent_s: float = 0.0
    maintenance: bool = False
    empties: bool = False
    gone: bool = False

    def refusal(self, name: str) -> str | None:
        """Why nothing new goes there."""
        if self.gone:
            return f"{name} was removed from the cluster"
        if self.silent_s:
            return f"{name} is not heard from"
        if self.empties:
            return f"{name} is being emptied"
        return f"{name} is in maintenance" if self.maintenance else None


@dataclass(frozen=True)
class DiskView:
    """A disk. `missing_s`: for how long it was not found, where its health says `missing`."""

    health: DiskHealth = DiskHealth.OK
    why: str = ""
    isolated: bool = False
    missing_s: float = 0.0

    @property
    def empties(self) -> bool:
        """Whether what lies on it is to be moved away."""
        return self.isolated or self.health is DiskHealth.ISOLATED

    def refusal(self, name: str) -> str | None:
        """Why nothing new goes there."""
        if self.isolated:
            return f"disk {name} was isolated"
        if self.health in (DiskHealth.OK, DiskHealth.WARNED):
            return None
        return f"disk {name} is {self.health}" + (f": {self.why}" if self.why else "")


@dataclass(frozen=True)
class Places:
    """All nodes and disks, by name; `full`: the disks (or pools) that have no room, by node."""

    nodes: Mapping[str, NodeView] = field(default_factory=dict)
    disks: Mapping[str, DiskView] = field(default_factory=dict)
    full: frozenset[tuple[str, str]] = frozenset()

    def node(self, name: str) -> NodeView:
        """A node; one that nothing is known of is usable."""
        return self.nodes.get(name, NodeView())

    def disk(self, name: str) -> DiskView:
        """A disk; what is no disk of its own (a file, a folder) is as its node is."""
        return self.disks.get(name, DiskView())

    def refusal(self, node: str, disk: str = "") -> str | None:
        """Why nothing new goes to that disk of that node."""
        return self.node(node).refusal(node) or self.disk(disk).refusal(disk)

    def bar(self, node: str, disk: str) -> str:
        """Why a replica there is not to be brought back for now ('': it may be)."""
        if (node, disk) in self.full:
            return f"{disk} is full on {node}"
        view = self.disk(disk)
        return view.refusal(disk) or "" if view.health is not DiskHealth.MISSING else ""


def full_places(pools: Iterable[Pool]) -> frozenset[tuple[str, str]]:
    """Where there is no room, by node: disks, or pools whose members are no disks."""
    found = set()
    for pool in pools:
        for usage in pool.status.usage:
            disks = [
                PoolUsage(node=usage.node, size_bytes=d.size_bytes, used_bytes=d.used_bytes)
                for d in usage.disks
            ]
            names = [d.disk for d in usage.disks]
            for name, one in zip(names or [pool.meta.name], disks or [usage], strict=True):
                if is_full(one):
                    found.add((usage.node, name))
    return frozenset(found)


def disk_view(disk: Disk, missing_s: float) -> DiskView:
    """A disk as its record tells."""
    return DiskView(disk.status.health, disk.status.why, disk.spec.isolated, missing_s)
