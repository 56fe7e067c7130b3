"""Moving a replica: what can be moved where, and what is recorded of it."""

from __future__ import annotations

from datetime import datetime

from trivet.contracts.errors import CONFLICT, DELETING, REFERENCE, Refused
from trivet.contracts.storage.codes import NOT_READY
from trivet.contracts.storage.volume import Missing, Replica, ReplicaState, Volume
from trivet.storage.domain.volume_status import in_sync, replica_on, with_added, with_replica


def check_move(volume: Volume, source: str, target: str) -> bool:
    """Whether the move is under way already. Raises `Refused` where it can't be."""
    name = volume.meta.name
    if volume.meta.deleting_at is not None:
        raise Refused(DELETING, f"volume {name} is being deleted")
    if volume.status.reverting is not None:
        raise Refused(NOT_READY, f"volume {name} goes back to a snapshot")
    there, coming = replica_on(volume, source), replica_on(volume, target)
    if there is None or there.state is ReplicaState.LEAVING:
        known = ", ".join(r.node for r in volume.status.replicas)
        raise Refused(
            REFERENCE, f"source: volume {name} has no replica on {source}", hint=f"it has: {known}"
        )
    if coming is not None:
        if there.moving and coming.missing is Missing.ALL:
            return True
        raise Refused(
            CONFLICT,
            f"target: {target} has a replica of volume {name} already",
            hint="two replicas on one node would fail together",
        )
    if not in_sync(volume):
        raise Refused(NOT_READY, f"volume {name} has no replica in sync to copy from")
    return False


def moving(volume: Volume, source: str, target: str, disk: str, why: str, now: datetime) -> Volume:
    """The volume with a replica to be made on `target`, and the one on `source` to go then."""
    if check_move(volume, source, target):
        return volume
    marked = with_replica(volume, source, lambda r: r.model_copy(update={"moving": why}))
    new = Replica(
        node=target,
        disk=disk,
        state=ReplicaState.CREATING,
        reason=f"moved from {source}",
        since=now,
        missing=Missing.ALL,
    )
    return with_added(marked, new)
