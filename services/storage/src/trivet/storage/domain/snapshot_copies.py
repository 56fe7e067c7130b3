"""Where a snapshot is kept beside the node that cut it: pure.

A snapshot lies where its volume's replicas lie, so that it outlives a disk or a node as they do,
goes where they go, and clones of it begin with as many replicas. A node gets it once its replica is
in sync, for it then has nearly all of it already: one that was away or is rebuilt gets it when it
is back, and the record says until then who has it. A node that has no replica any more lets go of
it once all others have it. What it was cut on is only the first among those that have it: another
takes its place when it goes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from trivet.contracts.storage.engine import SnapshotRecord
from trivet.contracts.storage.snapshot import Snapshot, SnapshotCopy, SnapshotPart
from trivet.contracts.storage.volume import ReplicaState, Volume
from trivet.storage.domain.replication import trusted

_GOES = (ReplicaState.LEAVING, ReplicaState.LOST)


def wanted_on(part: SnapshotPart, volume: Volume) -> tuple[str, ...]:
    """The nodes that are to get a part that they have not."""
    return tuple(r.node for r in trusted(volume) if r.node not in part.nodes)


def spread(part: SnapshotPart, volume: Volume | None, promised: Collection[str]) -> SnapshotPart:
    """The part as it is to be kept now; `promised`: the nodes where there is space for a copy
    more. A volume that is not known changes nothing."""
    if volume is None:
        return part
    new = tuple(SnapshotCopy(node=n) for n in wanted_on(part, volume) if n in promised)
    grown = part.model_copy(update={"copies": (*part.copies, *new)}) if new else part
    stays = {r.node for r in volume.status.replicas if r.state not in _GOES}
    good = [r.node for r in trusted(volume)]
    if not good or any(node not in grown.complete_on for node in good):
        return grown
    for node in grown.nodes:
        if node not in stays:
            grown = without(grown, node) or grown
    return grown


def without(part: SnapshotPart, node: str) -> SnapshotPart | None:
    """The part without what a node keeps of it, one that has all of it first; None: nobody has
    anything of it then."""
    copies = tuple(copy for copy in part.copies if copy.node != node)
    if node != part.node:
        return part if len(copies) == len(part.copies) else _with(part, copies)
    if not copies:
        return None
    first = next((copy for copy in copies if copy.complete), copies[0])
    rest = tuple(copy for copy in copies if copy is not first)
    return part.model_copy(update={"node": first.node, "copies": rest})


def copied(part: SnapshotPart, record: SnapshotRecord, node: str) -> SnapshotPart:
    """The part complete on a node, as that found it."""
    done = SnapshotCopy(node=node, complete=True, used_bytes=record.used_bytes)
    return _with(part, tuple(done if copy.node == node else copy for copy in part.copies))


def missed(part: SnapshotPart, node: str) -> SnapshotPart | None:
    """The part that a node does not find any more: it is copied there again; None: nobody else
    has all of it."""
    again = SnapshotCopy(node=node)
    if node != part.node:
        return _with(part, tuple(again if c.node == node else c for c in part.copies))
    left = without(part, node)
    if left is None or len(part.complete_on) < 2:
        return None
    return _with(left, (*left.copies, again))


def with_part(snapshot: Snapshot, changed: SnapshotPart) -> Snapshot:
    """The snapshot with that part instead of the one of the same volume."""
    parts = tuple(changed if p.volume == changed.volume else p for p in snapshot.status.parts)
    return snapshot if parts == snapshot.status.parts else snapshot.with_status(parts=parts)


def without_node(snapshot: Snapshot, node: str) -> Snapshot:
    """A snapshot that goes, without what a node kept of it."""
    left = (without(p, node) if node in p.nodes else p for p in snapshot.status.parts)
    return snapshot.with_status(parts=tuple(p for p in left if p is not None))


def nodes_of(parts: Iterable[SnapshotPart]) -> tuple[str, ...]:
    """All nodes that have something of these parts, or are to have."""
    return tuple(dict.fromkeys(node for part in parts for node in part.nodes))


def by_place(parts: Iterable[SnapshotPart]) -> dict[tuple[str, str], int]:
    """What is to be promised in each pool on each node (bytes): all that a volume could overwrite,
    then what is held."""
    wanted: dict[tuple[str, str], int] = {}
    for part in parts:
        held = {part.node: part.used_bytes}
        held |= {c.node: c.used_bytes if c.complete else None for c in part.copies}
        for node, used in held.items():
            size = part.size_bytes if used is None else used
            wanted[part.pool, node] = wanted.get((part.pool, node), 0) + size
    return wanted


def promises(
    parts: Sequence[SnapshotPart], volumes: Mapping[str, Volume]
) -> dict[str, dict[tuple[str, str], int]]:
    """By node that is to get something more: what is to be promised there in all."""
    grown, nodes = list[SnapshotPart](), list[str]()
    for part in parts:
        volume = volumes.get(part.volume)
        new = wanted_on(part, volume) if volume is not None else ()
        nodes.extend(new)
        grown.append(_with(part, (*part.copies, *(SnapshotCopy(node=n) for n in new))))
    every = by_place(grown)
    return {n: {place: size for place, size in every.items() if place[1] == n} for n in nodes}


def _with(part: SnapshotPart, copies: tuple[SnapshotCopy, ...]) -> SnapshotPart:
    return part.model_copy(update={"copies": copies})
