"""What is done for a snapshot, in the cluster and on the node that it lies on: pure.

A snapshot's volumes are cut together by one node, so they must all have a replica in sync there.
Space for it is promised before it is taken, as much as the volumes could ever overwrite; once it
is there its promise shrinks to what it holds, for it never grows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from trivet.contracts.elapsed import elapsed_s
from trivet.contracts.resource import Condition, Phase
from trivet.contracts.storage.engine import SnapshotRecord
from trivet.contracts.storage.snapshot import Snapshot, SnapshotPart
from trivet.contracts.storage.volume import Volume
from trivet.storage.domain.volume_plan import COPIED_LOOK_S, DELETE_GRACE
from trivet.storage.domain.volume_status import in_sync


@dataclass(frozen=True)
class PlaceSnapshot:
    """Choose the node, claim its space, record it."""


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


ClusterAction = PlaceSnapshot | AssignSnapshot | SettleClaim | ForgetSnapshot


def plan_in_cluster(snapshot: Snapshot, now: datetime, copied: bool) -> tuple[ClusterAction, ...]:
    """What the controller does now; `copied`: something is still made from it."""
    node = node_of(snapshot)
    if snapshot.meta.deleting_at is not None:
        left_s = DELETE_GRACE.total_seconds() - elapsed_s(snapshot.meta.deleting_at, now)
        if node is None or (left_s <= 0 and not copied):
            return (ForgetSnapshot(),)
        return (AssignSnapshot(node, max(left_s, COPIED_LOOK_S)),)
    if node is None:
        return () if snapshot.status.phase is Phase.FAILED else (PlaceSnapshot(),)
    settle = snapshot.status.claimed_bytes != wanted_bytes(snapshot)
    return (*((SettleClaim(),) if settle else ()), AssignSnapshot(node))


@dataclass(frozen=True)
class Take:
    """Cut all volumes at one point, and record that."""


@dataclass(frozen=True)
class Drop:
    """Remove it here, and record that."""


@dataclass(frozen=True)
class NoteMissing:
    """Record that it was here and is not any more."""


@dataclass(frozen=True)
class ReleaseSnapshot:
    """This node has nothing to do with it any more."""


NodeAction = Take | Drop | NoteMissing | ReleaseSnapshot


def plan_on_node(
    snapshot: Snapshot, node: str, there: Sequence[SnapshotRecord], copied: bool
) -> tuple[NodeAction, ...]:
    """What `node` does now, in order."""
    if node_of(snapshot) != node:
        return (Drop(), ReleaseSnapshot()) if there else (ReleaseSnapshot(),)
    if snapshot.meta.deleting_at is not None:
        return () if copied else (Drop(),)
    whole = {r.volume for r in there if r.complete} == {p.volume for p in snapshot.status.parts}
    if snapshot.status.taken_at is None:
        return (Take(),)
    if not whole and snapshot.status.phase is not Phase.FAILED:
        return (NoteMissing(),)
    return ()


def node_of(snapshot: Snapshot) -> str | None:
    """The node that the snapshot lies on, once it has a place."""
    return next((part.node for part in snapshot.status.parts), None)


def wanted_bytes(snapshot: Snapshot) -> int:
    """What is to be promised to it in all its pools."""
    return sum(by_pool(snapshot.status.parts).values())


def by_pool(parts: Iterable[SnapshotPart]) -> dict[str, int]:
    """What is to be promised in each pool (bytes): all that the volumes could overwrite, then
    what the snapshot holds."""
    wanted: dict[str, int] = {}
    for part in parts:
        size = part.size_bytes if part.used_bytes is None else part.used_bytes
        wanted[part.pool] = wanted.get(part.pool, 0) + size
    return wanted


def choose_node(volumes: Sequence[Volume]) -> str | None:
    """The node on which all these volumes have a replica in sync, a holder's first."""
    common: set[str] | None = None
    for volume in volumes:
        nodes = {replica.node for replica in in_sync(volume)}
        common = nodes if common is None else common & nodes
    held = [v.status.attachment.node for v in volumes if v.status.attachment]
    return next(iter([*(n for n in held if n in (common or ())), *sorted(common or ())]), None)


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
    return snapshot.with_status(parts=parts, claimed_bytes=sum(by_pool(parts).values()))


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
