"""What snapshots mean for volumes: which hold one, and what a volume may go back to."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from trivet.contracts.errors import DELETING, IN_USE, REFERENCE, Refused
from trivet.contracts.resource import Phase
from trivet.contracts.storage.codes import NOT_READY
from trivet.contracts.storage.snapshot import Snapshot
from trivet.contracts.storage.volume import Missing, Replica, ReplicaState, Volume
from trivet.storage.domain.replication import trusted
from trivet.storage.domain.volume_status import stated


def snapshots_of(volume: Volume, snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    """The snapshots that have a part of a volume, or are going to."""
    return [s for s in snapshots if _has(s, volume)]


def newest_of(volume: Volume, snapshots: Iterable[Snapshot]) -> Snapshot | None:
    """The newest snapshot of a volume that is taken and not about to go."""
    taken = [
        (s.status.taken_at, s)
        for s in snapshots_of(volume, snapshots)
        if s.status.taken_at is not None and s.meta.deleting_at is None
    ]
    return max(taken, key=lambda pair: (pair[0], pair[1].meta.id))[1] if taken else None


def revert(volume: Volume, snapshot: Snapshot, now: datetime) -> Volume:
    """The volume on its way back to a snapshot. Raises `Refused` where that can't be."""
    name = volume.meta.name
    if volume.meta.deleting_at is not None or snapshot.meta.deleting_at is not None:
        raise Refused(DELETING, f"volume {name} or snapshot {snapshot.meta.name} is being deleted")
    part = snapshot.status.part(volume.meta.id)
    if part is None:
        raise Refused(REFERENCE, f"snapshot {snapshot.meta.name} has no volume {name}")
    if snapshot.status.taken_at is None or snapshot.status.phase is not Phase.READY:
        raise Refused(NOT_READY, f"snapshot {snapshot.meta.name} is {snapshot.status.phase}")
    held = volume.status.attachment
    if held is not None:
        raise Refused(
            IN_USE,
            f"volume {name} is held by {held.holder} on {held.node}",
            hint="stop the VM first: a disk can't change below a guest that runs",
        )
    able = {r.node for r in trusted(volume)}
    goes = next((node for node in part.complete_on if node in able), None)
    if goes is None:
        where = ", ".join(part.complete_on)
        raise Refused(
            NOT_READY,
            f"volume {name} has no replica in sync on {where}, where the snapshot lies",
            hint=f"trivet volume move-replica {name} NODE {part.node}",
        )

    def others(replica: Replica) -> Replica:
        """The others are brought in sync with the one that goes back."""
        if replica.node == goes or replica.state is not ReplicaState.IN_SYNC:
            return replica
        why = f"volume goes back to snapshot {snapshot.meta.name}"
        return stated(replica, ReplicaState.STALE, why, now, Missing.DIFFERENCES)

    replicas = tuple(others(r) for r in volume.status.replicas)
    changes = {"reverting": snapshot.meta.id, "phase": Phase.PENDING, "replicas": replicas}
    return volume.with_status(**changes)


def _has(snapshot: Snapshot, volume: Volume) -> bool:
    if snapshot.status.part(volume.meta.id) is not None:
        return True
    same = snapshot.meta.project == volume.meta.project
    waits = not snapshot.status.parts and snapshot.status.phase is Phase.PENDING
    return same and waits and volume.meta.name in snapshot.spec.volumes
