"""A volume's status, as its replicas make it. Every writer of a replica goes through here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from trivet.contracts.resource import Condition, Phase
from trivet.contracts.storage.volume import Attachment, Replica, ReplicaState, Volume

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
    making = any(r.state is ReplicaState.CREATING for r in replicas)
    if volume.status.reverting is not None if good else making:
        phase = Phase.PENDING
    elif not good:
        phase = Phase.FAILED
    elif any(r.state in BAD for r in replicas):
        phase = Phase.DEGRADED
    elif len(good) < len(replicas):
        phase = Phase.PENDING
    else:
        phase = Phase.READY
    seen = phase is not Phase.PENDING and size >= volume.spec.size_bytes
    observed = volume.meta.generation if seen else volume.status.observed_generation
    return volume.with_status(phase=phase, size_bytes=size, observed_generation=observed)


def placed(
    volume: Volume, nodes: dict[str, str], claimed_bytes: int, reason: str, now: datetime
) -> Volume:
    """The volume with replicas to be made on these nodes (node -> what they lie on), each of
    which has that much promised."""
    replicas = tuple(
        Replica(node=node, disk=disk, state=ReplicaState.CREATING) for node, disk in nodes.items()
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
