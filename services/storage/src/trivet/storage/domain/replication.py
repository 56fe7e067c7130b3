"""What is recorded of a volume's replicas: each step of the protocol as a change of the volume.

Who is recorded as in sync has every acknowledged write; that holds because a replica leaves the
record before a write is acknowledged without it, and comes back after it has all of them. Each
change names the graph (epoch and number) it speaks of and does nothing where the volume is not in
that graph any more, so a compare-and-swap over a fresh read keeps it right whoever else writes.

A replica in sync that is not suspect is called *trusted*: it may be read. Among the others in sync
it alone says what the volume holds where they differ, so the last trusted one is never given up
while the others have not been compared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

from trivet.contracts.storage.volume import (
    Attachment,
    Graph,
    Missing,
    Progress,
    Replica,
    ReplicaState,
    Volume,
)
from trivet.storage.domain.volume_status import in_sync, replica_on, settled, with_replica

REPAIR = "storage:repair"
"""The holder's name under which storage itself holds a volume that needs repair."""

_IN_GRAPH = (ReplicaState.IN_SYNC, ReplicaState.REBUILDING)


def slots_of(volume: Volume) -> int:
    """How many replicas the volume's graph must have room for: one more than wanted, for one
    that comes while another goes. 0: it has one replica and stays so, and needs none."""
    there = [
        r
        for r in volume.status.replicas
        if r.state not in (ReplicaState.LOST, ReplicaState.CREATING)
    ]
    if volume.spec.replicas < 2 and len(there) < 2:
        return 0
    return volume.spec.replicas + 1


def graph_of(volume: Volume) -> Graph | None:
    """The graph that the volume is held in."""
    held = volume.status.attachment
    return Graph(epoch=held.epoch, number=held.number) if held is not None else None


def trusted(volume: Volume) -> tuple[Replica, ...]:
    """The replicas in sync that may be read."""
    return tuple(r for r in in_sync(volume) if not r.suspect)


def missing_now(volume: Volume, replica: Replica) -> Missing:
    """What a replica needs: the changes since it left only while the graph it left lives."""
    if replica.missing is Missing.CHANGES and replica.left != graph_of(volume):
        return Missing.DIFFERENCES
    return replica.missing


def record_lost(
    volume: Volume,
    graph: Graph,
    node: str,
    healthy: Collection[str],
    reason: str,
    now: datetime,
    *,
    unread: bool = False,
) -> Volume:
    """The volume without the replica on `node`, which failed in `graph`: now writes may be
    acknowledged without it. Unchanged where no trusted replica would be left in the graph among
    `healthy` (those of its members that work). `unread`: what it lacks is not only what is written
    from now on, but also what it can't give back."""
    replica = replica_on(volume, node)
    if graph_of(volume) != graph or replica is None or replica.state not in _IN_GRAPH:
        return volume
    left = [r for r in trusted(volume) if r.node != node and r.node in healthy]
    if not left:
        return volume
    missing = missing_now(volume, replica)
    if replica.state is ReplicaState.IN_SYNC:
        missing = Missing.DIFFERENCES if replica.suspect or unread else Missing.CHANGES
    return with_replica(volume, node, lambda r: _stale(r, missing, graph, reason, now))


def begin_resync(volume: Volume, graph: Graph, node: str, now: datetime) -> Volume:
    """The volume with its stale replica on `node` being brought back in `graph`."""
    replica = replica_on(volume, node)
    if graph_of(volume) != graph or replica is None or replica.state is not ReplicaState.STALE:
        return volume
    missing = missing_now(volume, replica)
    changes = {"state": ReplicaState.REBUILDING, "missing": missing, "since": now, "reason": ""}
    changes["progress"] = None
    return with_replica(volume, node, lambda r: r.model_copy(update=changes))


def admitted(volume: Volume, graph: Graph, node: str, boot: str) -> Volume:
    """The volume with its replica on `node` about to be a member of `graph`: which run of its
    host's kernel that is tells later whether it has lost what it was told since."""
    if graph_of(volume) != graph or replica_on(volume, node) is None:
        return volume
    return with_replica(volume, node, lambda r: r.model_copy(update={"boot": boot}))


def resynced(volume: Volume, graph: Graph, node: str, now: datetime) -> Volume:
    """The volume with its replica on `node` in sync: it has got all it missed, which is on its
    disk, and every write since it was admitted to `graph`, where it still is."""
    replica = replica_on(volume, node)
    if graph_of(volume) != graph or replica is None or replica.state is not ReplicaState.REBUILDING:
        return volume
    return with_replica(volume, node, lambda r: _good(r, now))


def compared(volume: Volume, graph: Graph, node: str, now: datetime) -> Volume:
    """The volume with its suspect on `node` found, or made, equal to a trusted one in `graph`."""
    replica = replica_on(volume, node)
    if graph_of(volume) != graph or replica is None or not replica.suspect:
        return volume
    if replica.state is not ReplicaState.IN_SYNC:
        return volume
    return with_replica(volume, node, lambda r: _good(r, now))


def progressed(
    volume: Volume, graph: Graph, node: str, done_bytes: int, total_bytes: int, now: datetime
) -> Volume:
    """The volume saying how far its replica on `node` is, that is brought back in `graph`."""
    replica = replica_on(volume, node)
    if graph_of(volume) != graph or replica is None or replica.state not in _IN_GRAPH:
        return volume
    took_s = max((now - replica.since).total_seconds(), 0.0) if replica.since else 0.0
    left_s = took_s * (total_bytes - done_bytes) / done_bytes if done_bytes else 0.0
    told = Progress(done_bytes=done_bytes, total_bytes=total_bytes, left_s=round(left_s, 1))
    return with_replica(volume, node, lambda r: r.model_copy(update={"progress": told}))


def leaving(volume: Volume, node: str, reason: str, now: datetime) -> Volume:
    """The volume with its replica on `node` not needed any more; unchanged where it is the last
    trusted one."""
    if not any(r.node != node for r in trusted(volume)):
        return volume
    changes = {"state": ReplicaState.LEAVING, "reason": reason, "since": now, "suspect": False}
    return with_replica(volume, node, lambda r: r.model_copy(update=changes))


def graph_ended(volume: Volume, graph: Graph) -> Volume:
    """The volume whose `graph` ended in order: all its members have the same on disk. What it
    knew of those that left it is gone with it."""
    if graph_of(volume) != graph:
        return volume
    return with_all(volume.with_status(unclean=False), after_graph)


def after_graph(replica: Replica) -> Replica:
    """A replica as it stands when the graph that it was in, or had left, is over: a copy to it
    is over too, and nobody knows any more which changes it missed."""
    changes: dict[str, object] = {}
    if replica.state is ReplicaState.REBUILDING:
        changes["state"] = ReplicaState.STALE
    if replica.progress is not None:
        changes["progress"] = None
    if replica.missing is Missing.CHANGES:
        changes.update(missing=Missing.DIFFERENCES, left=None)
    return replica.model_copy(update=changes) if changes else replica


def with_all(volume: Volume, change: Callable[[Replica], Replica]) -> Volume:
    """The volume with all its replicas changed, and what follows."""
    return settled(volume.with_status(replicas=tuple(map(change, volume.status.replicas))))


def left_out(replica: Replica, reason: str, now: datetime) -> Replica:
    """A replica in sync as it is when a graph begins without it: what it lacks is not known."""
    return _stale(replica, Missing.DIFFERENCES, None, reason, now)


def held_for_repair(attachment: Attachment | None) -> bool:
    """Whether it is storage itself that holds the volume."""
    return attachment is not None and attachment.holder == REPAIR


def _stale(
    replica: Replica, missing: Missing, left: Graph | None, reason: str, now: datetime
) -> Replica:
    return replica.model_copy(
        update={
            "state": ReplicaState.STALE,
            "missing": missing,
            "left": left if missing is Missing.CHANGES else None,
            "suspect": False,
            "reason": reason,
            "since": now,
            "progress": None,
        }
    )


def _good(replica: Replica, now: datetime) -> Replica:
    return replica.model_copy(
        update={
            "state": ReplicaState.IN_SYNC,
            "missing": Missing.NOTHING,
            "left": None,
            "suspect": False,
            "reason": "",
            "since": now,
            "progress": None,
        }
    )
