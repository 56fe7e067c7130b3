"""A volume's status, as its replicas make it. Every writer of a replica goes through here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from trivet.contracts.resource import Condition, Phase
from trivet.contracts.storage.engine import ReplicaRecord
from trivet.contracts.storage.volume import (
    Attachment,
    Missing,
    Replica,
    ReplicaState,
    Volume,
)

BAD = (ReplicaState.LOST, ReplicaState.STALE, ReplicaState.REBUILDING)


def in_sync(volume: Volume) -> tuple[Replica, ...]:
    """The replicas that have every acknowledged write."""
    return tuple(r for r in volume.status.replicas if r.state is ReplicaState.IN_SYNC)


def replica_on(volume: Volume, node: str) -> Replica | None:
    """The volume's replica on a node."""
    return next((r for r in volume.status.replicas if r.node == node), None)


def with_replica(volume: Volume, node: str, change: Callable[[Replica], Replica | None]) -> Volume:
    """The volume with its replica on `node` changed (None: dropped), and all that follows."""
    changed = [change(r) if r.node == node else r for r in volume.status.replicas]
    return settled(volume.with_status(replicas=tuple(r for r in changed if r is not None)))


def settled(volume: Volume) -> Volume:
    """The volume with the phase, size and generation that its replicas give it."""
    replicas = volume.status.replicas
    if volume.meta.deleting_at is not None or not replicas:
        return volume
    good = in_sync(volume)
    size = min((r.size_bytes for r in good), default=0)
    phase = _phase(volume, len(good))
    seen = phase is not Phase.PENDING and size >= volume.spec.size_bytes
    observed = volume.meta.generation if seen else volume.status.observed_generation
    return volume.with_status(phase=phase, size_bytes=size, observed_generation=observed)


def _phase(volume: Volume, good: int) -> Phase:
    """`good`: how many replicas are in sync. One more that was asked for and is still on its way
    is pending; one that was there and is not good any more makes the volume degraded."""
    replicas = volume.status.replicas
    making = any(r.state is ReplicaState.CREATING for r in replicas)
    if volume.status.reverting is not None if good else making:
        return Phase.PENDING
    if not good:
        return Phase.FAILED
    if good >= volume.spec.replicas:
        return Phase.READY
    asked_newly = volume.status.observed_generation < volume.meta.generation
    if asked_newly and not any(r.state in BAD and not _is_new(r) for r in replicas):
        return Phase.PENDING
    return Phase.DEGRADED


def _is_new(replica: Replica) -> bool:
    """Whether it never was in sync."""
    return replica.missing is Missing.ALL


def stated(
    replica: Replica,
    state: ReplicaState,
    reason: str,
    now: datetime,
    missing: Missing = Missing.NOTHING,
) -> Replica:
    """The replica in another state, since now; unchanged where it is in it already."""
    if (replica.state, replica.reason, replica.missing) == (state, reason, missing):
        return replica
    changes = {"state": state, "reason": reason, "missing": missing, "since": now}
    return replica.model_copy(update=changes)


def found(
    volume: Volume, replica: Replica, record: ReplicaRecord, disk: str, now: datetime
) -> Replica:
    """The replica as its node finds it. One that was just made is in sync where it begins alike
    with the others and nobody has written to the volume yet; else it is to be brought in sync. An
    empty one lacks all; one that was there before, and was served then, may lack anything. Where
    nobody is in sync it only stands for the volume if it was served in its last epoch: a blank
    one never takes the place of what was lost."""
    seen = {"size_bytes": record.size_bytes, "used_bytes": record.used_bytes, "disk": disk}
    there = replica.model_copy(update=seen)
    if replica.state is not ReplicaState.CREATING:
        return there
    if replica.missing is Missing.NOTHING and volume.status.epoch == 0:
        return stated(there, ReplicaState.IN_SYNC, "", now)
    served_last = record.epoch > 0 and record.epoch >= volume.status.epoch
    if replica.missing is Missing.NOTHING and served_last and not in_sync(volume):
        return stated(there, ReplicaState.IN_SYNC, "", now)
    empty = replica.missing is Missing.ALL and record.epoch == 0
    missing = Missing.ALL if empty else Missing.DIFFERENCES
    return stated(there, ReplicaState.STALE, replica.reason, now, missing)


def removed(replica: Replica) -> Replica | None:
    """The record of a replica after it was removed: one that left keeps its place until its space
    was given back."""
    if replica.state is not ReplicaState.LEAVING:
        return None
    return replica.model_copy(update={"size_bytes": 0, "used_bytes": None})


def told_redundancy(volume: Volume, told: Condition, now: datetime) -> Volume:
    """The volume saying how redundant it is, and degraded where too few of its replicas can be
    reached, in sync as all may be; unchanged where it says so already, or where there is nothing
    to be said."""
    old = volume.status.condition(told.type)
    if old is None and told.status == "true" and not told.message:
        return volume
    # What was found while looking for a place is told in addition, until it changes.
    alike = old is not None and (old.status, old.reason) == (told.status, told.reason)
    said = old.message if old is not None else ""
    phase = settled(volume).status.phase
    if told.status == "false" and phase is Phase.READY:
        phase = Phase.DEGRADED
    if alike and (told.message == said or said.startswith(f"{told.message}; no place")):
        return volume if phase is volume.status.phase else volume.with_status(phase=phase)
    status = volume.status.with_condition(told, now)
    return volume.model_copy(update={"status": status}).with_status(phase=phase)


def with_added(volume: Volume, replica: Replica) -> Volume:
    """The volume with one replica more, on a node that has none."""
    if replica_on(volume, replica.node) is not None:
        return volume
    return settled(volume.with_status(replicas=(*volume.status.replicas, replica)))


def placed(
    volume: Volume, nodes: dict[str, str], claimed_bytes: int, reason: str, now: datetime
) -> Volume:
    """The volume with replicas to be made on these nodes (node -> what they lie on), each of
    which has that much promised."""
    replicas = tuple(
        Replica(node=node, disk=disk, state=ReplicaState.CREATING, since=now)
        for node, disk in nodes.items()
    )
    condition = Condition(type="Placed", status="true", reason="Placed", message=reason)
    status = volume.status.with_condition(condition, now)
    changes = {
        "replicas": replicas,
        "pool": volume.spec.pool,
        "phase": Phase.PENDING,
        "claimed_bytes": claimed_bytes,
    }
    return volume.model_copy(update={"status": status}).with_status(**changes)


def unplaced(volume: Volume, code: str, reason: str, now: datetime) -> Volume:
    """The volume saying why it has no place; it is tried again."""
    condition = Condition(type="Placed", status="false", reason=code, message=reason)
    return volume.model_copy(update={"status": volume.status.with_condition(condition, now)})


def growth(volume: Volume, claimed_bytes: int, refused: str, now: datetime) -> Volume:
    """The volume with its growth promised, or (`refused`) saying why it is not yet."""
    condition = Condition(
        type="Grown",
        status="false" if refused else "true",
        reason="NoSpace" if refused else "Promised",
        message=refused,
    )
    told = volume.model_copy(update={"status": volume.status.with_condition(condition, now)})
    # Only what is asked for still is a promise that counts.
    asked = volume.spec.size_bytes == claimed_bytes
    return told if refused or not asked else told.with_status(claimed_bytes=claimed_bytes)


def with_attachment(volume: Volume, attachment: Attachment | None) -> Volume:
    """The volume held like that."""
    return volume.with_status(attachment=attachment)
