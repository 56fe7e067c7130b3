"""What is done for a snapshot, in the cluster and on the nodes that it lies on: pure.

A snapshot's volumes are cut together by one node, so they must all have a replica there that may be
read; the other nodes of their replicas get the same (`snapshot_copies`). Space for it is promised
before it is taken, as much as the volumes could ever overwrite; once it is there its promise
shrinks to what it holds, for it never grows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from trivet.contracts.elapsed import elapsed_s
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Condition, Phase
from trivet.contracts.storage.engine import SnapshotRecord
from trivet.contracts.storage.snapshot import Snapshot, SnapshotPart
from trivet.contracts.storage.volume import Volume
from trivet.storage.domain.replication import trusted
from trivet.storage.domain.snapshot_copies import by_place, nodes_of, spread, wanted_on
from trivet.storage.domain.volume_plan import COPIED_LOOK_S, DELETE_GRACE


@dataclass(frozen=True)
class PlaceSnapshot:
    """Choose the node, claim its space, record it."""


@dataclass(frozen=True)
class PlaceElsewhere:
    """It was not cut where it was to be, and can't be there now: begin anew."""


@dataclass(frozen=True)
class Spread:
    """Record where it is kept now, after its space was promised."""


@dataclass(frozen=True)
class AssignSnapshot:
    """Point the node's agent at it, and look again after that long (None: when woken)."""

    node: str
    after_s: float | None = None


@dataclass(frozen=True)
class SettleClaim:
    """Shrink the promise to what is there."""


@dataclass(frozen=True)
class ForgetSnapshot:
    """Give the space back, and remove the snapshot."""


ClusterAction = (
    PlaceSnapshot | PlaceElsewhere | Spread | AssignSnapshot | SettleClaim | ForgetSnapshot
)


def plan_in_cluster(
    snapshot: Snapshot,
    now: datetime,
    copied: bool,
    volumes: Mapping[str, Volume] = MappingProxyType({}),
    silent: Collection[str] = (),
) -> tuple[ClusterAction, ...]:
    """What the controller does now; `copied`: something is still made from it; `volumes`: its
    volumes by id, as far as they are known; `silent`: nodes that are not heard."""
    node, parts = node_of(snapshot), snapshot.status.parts
    if snapshot.meta.deleting_at is not None:
        left_s = DELETE_GRACE.total_seconds() - elapsed_s(snapshot.meta.deleting_at, now)
        if node is None or (left_s <= 0 and not copied):
            return (ForgetSnapshot(),)
        again_s = max(left_s, COPIED_LOOK_S)
        return tuple(AssignSnapshot(n, again_s) for n in nodes_of(parts))
    if node is None:
        return () if snapshot.status.phase is Phase.FAILED else (PlaceSnapshot(),)
    if snapshot.status.taken_at is None and _is_stuck(node, parts, volumes, silent):
        return (PlaceElsewhere(),)
    actions = list[ClusterAction]()
    if snapshot.status.phase is Phase.READY and any(
        wanted_on(p, v) or spread(p, v, ()) != p
        for p in parts
        if (v := volumes.get(p.volume)) is not None
    ):
        actions.append(Spread())
    if snapshot.status.claimed_bytes != wanted_bytes(snapshot):
        actions.append(SettleClaim())
    return (*actions, *(AssignSnapshot(n) for n in nodes_of(parts)))


def _is_stuck(
    node: str,
    parts: Sequence[SnapshotPart],
    volumes: Mapping[str, Volume],
    silent: Collection[str],
) -> bool:
    """Whether another node could cut it now, and this one can't."""
    known = [volumes[p.volume] for p in parts if p.volume in volumes]
    chosen = choose_node(known, silent) if len(known) == len(parts) else None
    if chosen in (None, node) or chosen in silent:
        return False
    here = all(node in {r.node for r in trusted(v)} for v in known)
    return not here or node in silent


@dataclass(frozen=True)
class Take:
    """Cut all volumes at one point, and record that."""


@dataclass(frozen=True)
class Drop:
    """Remove it here, and record that."""


@dataclass(frozen=True)
class DropPart:
    """Remove one volume of it here, that is kept elsewhere."""

    volume: ResourceId


@dataclass(frozen=True)
class CopyPart:
    """Make a part alike to that of the node that has all of it."""

    volume: ResourceId


@dataclass(frozen=True)
class NoteCopied:
    """Record that a part is complete here."""

    volume: ResourceId


@dataclass(frozen=True)
class NoteMissing:
    """Record that a part was here and is not any more."""

    volume: ResourceId


@dataclass(frozen=True)
class ReleaseSnapshot:
    """This node has nothing to do with it any more."""


NodeAction = Take | Drop | DropPart | CopyPart | NoteCopied | NoteMissing | ReleaseSnapshot


def plan_on_node(
    snapshot: Snapshot,
    node: str,
    there: Sequence[SnapshotRecord],
    copied: bool,
    unseen: bool = False,
) -> tuple[NodeAction, ...]:
    """What `node` does now, in order; `unseen`: some of its disks are not open, so that what is
    not there may be on them."""
    parts = [p for p in snapshot.status.parts if node in p.nodes]
    waits = snapshot.status.taken_at is None and node_of(snapshot) == node
    if unseen and not (waits and snapshot.meta.deleting_at is None):
        return ()
    if not parts:
        return (Drop(), ReleaseSnapshot()) if there else (ReleaseSnapshot(),)
    if snapshot.meta.deleting_at is not None:
        return () if copied else (Drop(),)
    if snapshot.status.taken_at is None:
        return (Take(),) if waits else ()
    if snapshot.status.phase is Phase.FAILED:
        return ()
    whole = {r.volume for r in there if r.complete}
    mine = {p.volume for p in parts}
    actions: list[NodeAction] = [DropPart(r.volume) for r in there if r.volume not in mine]
    for part in parts:
        copy = part.copy_on(node)
        believed, is_here = copy is None or copy.complete, part.volume in whole
        if believed and not is_here:
            actions.append(NoteMissing(part.volume))
        elif not believed:
            actions.append(NoteCopied(part.volume) if is_here else CopyPart(part.volume))
    return tuple(actions)


def node_of(snapshot: Snapshot) -> str | None:
    """The node that cuts the snapshot, or has cut it, once it has a place."""
    return next((part.node for part in snapshot.status.parts), None)


def wanted_bytes(snapshot: Snapshot) -> int:
    """What is to be promised to it in all its pools."""
    return sum(by_place(snapshot.status.parts).values())


def choose_node(volumes: Sequence[Volume], silent: Collection[str] = ()) -> str | None:
    """The node on which all these volumes have a replica that may be read: one that is heard
    before one that is not, a holder's first."""
    common: set[str] | None = None
    for volume in volumes:
        nodes = {replica.node for replica in trusted(volume)}
        common = nodes if common is None else common & nodes
    held = {v.status.attachment.node for v in volumes if v.status.attachment}
    ranked = sorted(common or (), key=lambda n: (n in silent, n not in held, n))
    return next(iter(ranked), None)


def parts_on(node: str, volumes: Sequence[Volume]) -> tuple[SnapshotPart, ...]:
    """The parts of a snapshot of these volumes on a node."""
    return tuple(
        SnapshotPart(
            volume=v.meta.id,
            name=v.meta.name,
            node=node,
            pool=v.status.pool or "",
            size_bytes=v.status.size_bytes,
        )
        for v in volumes
    )


def placed(snapshot: Snapshot, parts: tuple[SnapshotPart, ...]) -> Snapshot:
    """The snapshot with its place, for which space is promised."""
    return snapshot.with_status(parts=parts, claimed_bytes=sum(by_place(parts).values()))


def taken(snapshot: Snapshot, records: Sequence[SnapshotRecord], now: datetime) -> Snapshot:
    """The snapshot taken, as the node found it."""
    found = {r.volume: r for r in records}
    parts = tuple(
        part.model_copy(
            update={
                "size_bytes": found[part.volume].size_bytes,
                "used_bytes": found[part.volume].used_bytes,
            }
        )
        for part in snapshot.status.parts
    )
    told = tell(snapshot, "true", "Taken", "", now)
    generation = snapshot.meta.generation
    return told.with_status(
        parts=parts, taken_at=now, phase=Phase.READY, observed_generation=generation
    )


def failed(snapshot: Snapshot, reason: str, message: str, now: datetime) -> Snapshot:
    """The snapshot that can't be, and why."""
    told = tell(snapshot, "false", reason, message, now)
    return told.with_status(phase=Phase.FAILED, observed_generation=snapshot.meta.generation)


def tell(snapshot: Snapshot, status: str, reason: str, message: str, now: datetime) -> Snapshot:
    """The snapshot saying how far it is."""
    condition = Condition.model_validate(
        {"type": "Taken", "status": status, "reason": reason, "message": message}
    )
    if snapshot.meta.deleting_at is not None:
        return snapshot
    return snapshot.model_copy(update={"status": snapshot.status.with_condition(condition, now)})


def told_copies(snapshot: Snapshot, refused: Sequence[str], now: datetime) -> Snapshot:
    """The snapshot saying where there is no space for a copy of it, if there is such a place."""
    told = Condition(
        type="Copied",
        status="false" if refused else "true",
        reason="NoSpace" if refused else "Promised",
        message="; ".join(refused),
    )
    if not refused and snapshot.status.condition("Copied") is None:
        return snapshot
    return snapshot.model_copy(update={"status": snapshot.status.with_condition(told, now)})
