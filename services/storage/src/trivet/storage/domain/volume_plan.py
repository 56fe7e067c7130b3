"""What a node has to do for a volume: desired and observed in, actions out.

The rules are a ladder from what frees to what takes: graphs that may not be here any more are
ended before servers, servers before replicas; then replicas are made and grown; then the graph
that should be here is. A graph that vanished after its holder was told of it (a reboot) is not
made again until the holder asks: it may have moved on; one that broke is made again in its
own epoch, and so is one whose volume grew. A replica is removed only for a volume
that is being deleted, that nobody holds and from which nobody is still being copied.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from trivet.contracts.elapsed import elapsed_s
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import AttachedVolume, ReplicaRecord
from trivet.contracts.storage.snapshot import Snapshot
from trivet.contracts.storage.volume import Qos, Replica, ReplicaState, Volume
from trivet.storage.domain.replication import slots_of
from trivet.storage.domain.volume_status import in_sync, replica_on, settled

DELETE_GRACE = timedelta(seconds=60)
"""How long a deletion waits for nodes that don't answer."""

LEAVE_GRACE = timedelta(seconds=3)
"""How long a replica that is not needed any more is still served to a holder."""

COPIED_LOOK_S = 1.0
"""How often it is looked whether what is made from a volume that is deleted is made by now."""


@dataclass(frozen=True)
class EndGraph:
    """Detach what is attached here."""


@dataclass(frozen=True)
class NoteDetached:
    """Record that the attachment of this node is over."""


@dataclass(frozen=True)
class EndServing:
    """End servers of epochs below that."""

    below_epoch: int


@dataclass(frozen=True)
class RemoveReplica:
    """Remove the replica of this node."""


@dataclass(frozen=True)
class NoteRemoved:
    """Record that this node has no replica any more."""


@dataclass(frozen=True)
class NoteLost:
    """Record that a replica that was in sync is not there."""


@dataclass(frozen=True)
class MakeReplica:
    """Make the replica, with its content, and record it."""


@dataclass(frozen=True)
class GrowReplica:
    """Grow the replica, and record it."""


@dataclass(frozen=True)
class Revert:
    """Give the replica the content of that snapshot, and record it."""

    snapshot: ResourceId


@dataclass(frozen=True)
class NoteReplica:
    """Record the replica as it is."""


@dataclass(frozen=True)
class MakeGraph:
    """Serve all replicas under that epoch, attach the volume, and record it."""

    epoch: int


@dataclass(frozen=True)
class KeepGraph:
    """Keep the graph over several replicas as `graph_plan` says."""


@dataclass(frozen=True)
class NoteEpoch:
    """Record that epochs up to that one were given out: the store does not know of them."""

    epoch: int


@dataclass(frozen=True)
class Limit:
    """Bound the graph."""

    qos: Qos


@dataclass(frozen=True)
class Release:
    """This node has nothing to do with the volume any more."""


@dataclass(frozen=True)
class LookAgain:
    """Look again after that long."""

    after_s: float


Action = (
    EndGraph
    | NoteDetached
    | EndServing
    | RemoveReplica
    | NoteRemoved
    | NoteLost
    | MakeReplica
    | GrowReplica
    | Revert
    | NoteReplica
    | MakeGraph
    | KeepGraph
    | NoteEpoch
    | Limit
    | LookAgain
    | Release
)


@dataclass(frozen=True)
class Seen:
    """What a node has of a volume. `copied_from`: another volume is still made from it;
    `unseen`: the disk of its replica is not open, so that nothing is known of that. `slots`:
    graphs can be changed here while they run."""

    record: ReplicaRecord | None = None
    attached: AttachedVolume | None = None
    copied_from: bool = False
    unseen: bool = False
    slots: bool = False


def plan_on_node(volume: Volume, node: str, seen: Seen, now: datetime) -> tuple[Action, ...]:
    """What `node` does now, in order."""
    replica = replica_on(volume, node)
    if replica is None and not _held_here(volume, node):
        ending = _endings(volume, node, seen)
        return ending or (_left_behind(volume, seen) if seen.record else (Release(),))
    if replica is not None and replica.state is ReplicaState.LEAVING:
        leaving = _leaving(volume, replica, seen, now)
        return (*_endings(volume, node, seen), *leaving, *_attaching(volume, node, seen))
    if (forgotten := _forgotten_epoch(volume, seen.record)) is not None:
        return (NoteEpoch(forgotten),)
    actions = list(_endings(volume, node, seen))
    if volume.meta.deleting_at is not None:
        return (*actions, *_removal(volume, replica, seen))
    goes_back = replica is not None and replica.state is ReplicaState.IN_SYNC
    if goes_back and volume.status.reverting is not None and seen.record is not None:
        return (*actions, Revert(volume.status.reverting))
    if replica is not None and not seen.unseen:
        actions.extend(_keeping(volume, replica, seen.record))
    actions.extend(_attaching(volume, node, seen))
    return tuple(actions)


def _left_behind(volume: Volume, seen: Seen) -> tuple[Action, ...]:
    """A replica that the volume's record does not speak of: this node was away while it was
    replaced. It goes once as many others are in sync as are asked for, and nobody copies it; and
    only if it has missed an epoch, for the store may be one that was put back to what it was
    before the volume came here."""
    assert seen.record is not None
    if volume.meta.deleting_at is None and len(in_sync(volume)) < volume.spec.replicas:
        return ()
    missed = max(seen.record.epoch, seen.record.floor) < volume.status.epoch
    return (*_removing(volume), Release()) if missed and not seen.copied_from else ()


def _leaving(volume: Volume, replica: Replica, seen: Seen, now: datetime) -> tuple[Action, ...]:
    """A replica that is not needed any more. The graph of the holder has let go of it when it
    has been so recorded for a while; where it has not, that write fails and is repeated without."""
    since = replica.since or volume.meta.created_at
    if seen.unseen or seen.copied_from or not replica.size_bytes:
        return ()
    if volume.status.attachment is not None and now - since < LEAVE_GRACE:
        return (LookAgain((since + LEAVE_GRACE - now).total_seconds()),)
    return (*(_removing(volume) if seen.record else ()), NoteRemoved())


def _removing(volume: Volume) -> tuple[Action, ...]:
    return (EndServing(volume.status.epoch + 1), RemoveReplica())


def _forgotten_epoch(volume: Volume, record: ReplicaRecord | None) -> int | None:
    """The highest epoch that this node's replica knows of, if the store has forgotten it: it
    was restored from a backup, or lost its last writes. Such an epoch must never be given out
    again, since somebody may still hold the volume in it."""
    held = volume.status.attachment
    served_next = held.epoch if held is not None else volume.status.epoch + 1
    return record.floor if record is not None and record.floor > served_next else None


def _attaching(volume: Volume, node: str, seen: Seen) -> tuple[Action, ...]:
    held, there = volume.status.attachment, seen.attached
    if held is None or held.node != node or held.detaching:
        return ()
    if seen.slots and has_slots(volume, there):
        bounded = there is None or not there.healthy or there.qos == volume.spec.qos
        return (KeepGraph(),) if bounded else (Limit(volume.spec.qos), KeepGraph())
    if held.socket is None:
        return (MakeGraph(held.epoch),)
    if there is None or there.epoch != held.epoch:
        return ()
    if not there.healthy or there.size_bytes != volume.status.size_bytes:
        return (MakeGraph(held.epoch),)
    if there.size_bytes != held.size_bytes:
        return (MakeGraph(held.epoch),)
    return (Limit(volume.spec.qos),) if there.qos != volume.spec.qos else ()


def has_slots(volume: Volume, there: AttachedVolume | None) -> bool:
    """Whether the volume's graph has, or is to have, room for several replicas."""
    return slots_of(volume) > 0 or (there is not None and there.slots > 0)


def _held_here(volume: Volume, node: str) -> bool:
    held = volume.status.attachment
    return held is not None and held.node == node


def _endings(volume: Volume, node: str, seen: Seen) -> tuple[Action, ...]:
    held, actions = volume.status.attachment, list[Action]()
    here = held if held is not None and held.node == node and not held.detaching else None
    if seen.attached and (here is None or here.epoch > seen.attached.epoch):
        actions.append(EndGraph())
    if held is not None and held.node == node and held.detaching:
        actions.append(NoteDetached())
    # Servers of the present epoch stay while somebody holds the volume, on whatever node.
    over = volume.status.epoch if held is not None else volume.status.epoch + 1
    if seen.record and seen.record.serving is not None and seen.record.serving < over:
        actions.append(EndServing(over))
    return tuple(actions)


def _removal(volume: Volume, replica: Replica | None, seen: Seen) -> tuple[Action, ...]:
    if volume.status.attachment is not None or replica is None or seen.copied_from:
        return ()
    if seen.record is not None:
        return (EndServing(volume.status.epoch + 1), RemoveReplica(), NoteRemoved())
    return (NoteRemoved(),)


def _keeping(volume: Volume, replica: Replica, record: ReplicaRecord | None) -> tuple[Action, ...]:
    if replica.state is ReplicaState.CREATING:
        # A complete one was made before a cut; the volume may ask for more since.
        return (NoteReplica(),) if record and record.complete else (MakeReplica(),)
    if replica.state is ReplicaState.IN_SYNC and (record is None or not record.complete):
        return (NoteLost(),)
    if record is None or replica.state is ReplicaState.LOST:
        return ()
    if record.size_bytes < volume.status.claimed_bytes:
        return (GrowReplica(),)
    if record.size_bytes != replica.size_bytes:
        return (NoteReplica(),)
    return ()


@dataclass(frozen=True)
class Place:
    """Choose nodes, claim their space, record them."""


@dataclass(frozen=True)
class ClaimGrowth:
    """Claim the space that the volume asks for now, and record that."""


@dataclass(frozen=True)
class AssignTo:
    """Point these nodes' agents at the volume."""

    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Settle:
    """Record that what was asked last is so: no replica had to change for it."""


@dataclass(frozen=True)
class LeaveBehind:
    """Give up waiting for these nodes: write down that their replicas are to be removed."""

    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Forget:
    """Give the space back, and remove the volume."""


ClusterAction = Place | ClaimGrowth | AssignTo | Settle | LeaveBehind | Forget | LookAgain


def plan_in_cluster(
    volume: Volume, now: datetime, copied: bool = False
) -> tuple[ClusterAction, ...]:
    """What the controller does now for a volume, in order; `copied`: another one is still
    made from it, which it must outlast however long that takes."""
    nodes = tuple(dict.fromkeys(r.node for r in volume.status.replicas))
    held = volume.status.attachment
    concerned = tuple(dict.fromkeys((*nodes, *((held.node,) if held else ()))))
    if volume.meta.deleting_at is None:
        if not nodes:
            return (Place(),)
        more = volume.status.claimed_bytes < volume.spec.size_bytes
        answered = settled(volume).status.observed_generation
        return (
            *((ClaimGrowth(),) if more else ()),
            AssignTo(concerned),
            *((Settle(),) if answered > volume.status.observed_generation else ()),
        )
    if held is not None:
        return (AssignTo(concerned),)
    if not nodes:
        return (Forget(),)
    left_s = DELETE_GRACE.total_seconds() - elapsed_s(volume.meta.deleting_at, now)
    if left_s > 0 or copied:
        after_s = max(left_s, COPIED_LOOK_S)
        return (AssignTo(concerned), LookAgain(after_s))
    return (LeaveBehind(nodes), Forget())


def copied_from(source: Volume | Snapshot, volumes: Iterable[Volume]) -> bool:
    """Whether some volume is still to be made from `source`: until then it must stay."""
    of_snapshot = isinstance(source, Snapshot)
    for volume in volumes:
        if volume.spec.source is None or volume.meta.deleting_at is not None:
            continue
        if volume.meta.project != source.meta.project or volume.meta.id == source.meta.id:
            continue
        if of_snapshot != (volume.spec.source.snapshot is not None):
            continue
        wanted, status = volume.spec.source, volume.status
        named = wanted.snapshot if of_snapshot else wanted.volume
        waits = not status.replicas and named == source.meta.name
        begun = status.source_snapshot if of_snapshot else status.source
        makes = begun == source.meta.id and any(
            r.state is ReplicaState.CREATING for r in status.replicas
        )
        if waits or makes:
            return True
    return False
