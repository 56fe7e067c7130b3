"""What the holder's node does for a replicated volume: the record and the graph in, actions out.

The rules are a ladder; the first that applies is done, and then it is looked again. From top to
bottom: the graph is there and is the one on record; who is silent is cut off; who failed leaves
the record and then the graph; who was brought back is recorded, and only then read; who needs it
is brought back; at last, what nobody needs to know any more is forgotten.

Nothing is remembered between looks but what can be found again: an agent that is killed anywhere
begins at the same rung. Two orders carry the protocol: the record comes before a member is
dropped, and a flush before a member that was copied to is recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trivet.contracts.storage.engine import AttachedVolume, MemberState
from trivet.contracts.storage.replication import Copy, CopyState
from trivet.contracts.storage.volume import (
    Attachment,
    Graph,
    Missing,
    Replica,
    ReplicaState,
    Volume,
)
from trivet.storage.domain.replication import graph_of, missing_now, slots_of, trusted
from trivet.storage.domain.volume_status import in_sync, replica_on

STEPS = 20


@dataclass(frozen=True)
class Reach:
    """How a host's storage side answers: silent for how long, and whether it has answered for
    long enough to be taken back. `unread`: its replica of the volume answered a read with an
    error."""

    silent_s: float = 0.0
    settled: bool = True
    unread: bool = False


@dataclass(frozen=True)
class Limits:
    """`silent_s`: who is silent for longer is cut off. `checkpoint_bytes`: how much may be
    written before what was changed is flushed and forgotten. `resyncs`: how many replicas are
    brought back to this volume at once; `bytes_per_s`: how fast each (0: unbounded)."""

    silent_s: float = 2.5
    checkpoint_bytes: int = 64 * 2**20
    resyncs: int = 2
    bytes_per_s: int = 0


@dataclass(frozen=True)
class GraphSeen:
    """What the holder's node sees. `copies` are the engine's, by node; `compared` says of a node
    in which graph all of its replica was found, or made, equal since it was admitted; `comparing`
    are those that are being compared, `far` up to which byte."""

    attached: AttachedVolume | None = None
    copies: Mapping[str, Copy] = field(default_factory=dict)
    reach: Mapping[str, Reach] = field(default_factory=dict)
    compared: Mapping[str, Graph] = field(default_factory=dict)
    comparing: frozenset[str] = frozenset()
    far: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class MakeGraph:
    """Have all replicas in sync served, record who is in, and make the graph. `in_order`: one is
    there and works, and is ended in order first."""

    in_order: bool = False


@dataclass(frozen=True)
class BreakOff:
    """End the connections of a silent member, so that what waits for it fails."""

    node: str


@dataclass(frozen=True)
class RecordLost:
    """Record that a failed member is not in sync; only if that is recorded, drop it. `unread`: it
    has every write, and parts that it can't give back."""

    node: str
    healthy: frozenset[str]
    unread: bool = False


@dataclass(frozen=True)
class Drop:
    """Take out a member that the record does not count on."""

    node: str


@dataclass(frozen=True)
class Promote:
    """Let a member be read."""

    node: str


@dataclass(frozen=True)
class BeginResync:
    """Record that a stale replica is brought back, have it served anew, and admit it."""

    node: str


@dataclass(frozen=True)
class Admit:
    """Have a replica that is recorded as coming back served anew, and admit it."""

    node: str


@dataclass(frozen=True)
class StartCopy:
    """Begin to copy to a member what it misses."""

    node: str
    missing: Missing
    bytes_per_s: int


@dataclass(frozen=True)
class EndCopy:
    """Forget a copy that failed, or is of no use."""

    node: str


@dataclass(frozen=True)
class Compare:
    """Begin to compare a member with one that is read, and to copy what differs."""

    node: str
    against: str
    bytes_per_s: int


@dataclass(frozen=True)
class Flush:
    """Have all that was written on disk on every member; `forget` what was changed before."""

    forget: bool


@dataclass(frozen=True)
class RecordInSync:
    """Record that a member has everything."""

    node: str


@dataclass(frozen=True)
class NoteProgress:
    """Record how far a member is."""

    node: str
    done_bytes: int
    total_bytes: int


GraphAction = (
    MakeGraph
    | BreakOff
    | RecordLost
    | Drop
    | Promote
    | BeginResync
    | Admit
    | StartCopy
    | EndCopy
    | Compare
    | Flush
    | RecordInSync
    | NoteProgress
)


def plan_graph(
    volume: Volume, node: str, seen: GraphSeen, limits: Limits
) -> tuple[GraphAction, ...]:
    """What `node` does now for a volume with slots that is held there; none: all is as it should
    be, or it waits for others."""
    held = volume.status.attachment
    if held is None or held.node != node or held.detaching or volume.meta.deleting_at is not None:
        return ()
    there = seen.attached
    if held.socket is None:
        return (MakeGraph(),)
    if there is None or there.epoch != held.epoch:
        # It vanished after its holder was told of it: it is made again when the holder asks.
        return ()
    if there.slots == 0:
        return (MakeGraph(in_order=there.healthy),) if slots_of(volume) else ()
    if _is_another(volume, held, there):
        return (MakeGraph(),)
    view = _View(volume, there, seen, limits)
    for rung in (
        _cut_off,
        _give_up,
        _remake,
        _put_out,
        _take_for_good,
        _go_on_bringing_back,
        _bring_back,
        _checkpoint,
    ):
        actions = rung(view)
        if actions:
            return actions
    return ()


def _is_another(volume: Volume, held: Attachment, there: AttachedVolume) -> bool:
    """Whether the graph is not the one on record, or is beyond mending."""
    return (
        not there.healthy
        or there.number != held.number
        or any(r.node not in there.members for r in in_sync(volume))
    )


@dataclass(frozen=True)
class _View:
    volume: Volume
    there: AttachedVolume
    seen: GraphSeen
    limits: Limits

    def is_silent(self, node: str) -> bool:
        reach = self.seen.reach.get(node)
        return reach is not None and reach.silent_s >= self.limits.silent_s

    @property
    def failed(self) -> tuple[str, ...]:
        members = self.there.members
        return tuple(n for n in sorted(members) if members[n] is MemberState.FAILED)

    @property
    def healthy(self) -> frozenset[str]:
        return frozenset(self.there.members) - frozenset(self.failed)

    def member(self, replica: Replica) -> bool:
        return replica.node in self.there.members

    def replicas(self, state: ReplicaState) -> tuple[Replica, ...]:
        return tuple(r for r in self.volume.status.replicas if r.state is state)

    @property
    def counted_on(self) -> bool:
        """Whether somebody would be left who may be read, were all that failed given up."""
        return any(r.node in self.healthy for r in trusted(self.volume))

    def changes_wanted(self, besides: str = "") -> bool:
        """Whether somebody is to be brought back by what this graph has recorded."""
        return any(
            missing_now(self.volume, r) is Missing.CHANGES
            for r in self.volume.status.replicas
            if r.node != besides and r.state in (ReplicaState.STALE, ReplicaState.REBUILDING)
        )


def _cut_off(view: _View) -> tuple[GraphAction, ...]:
    return tuple(BreakOff(node) for node in sorted(view.healthy) if view.is_silent(node))


def _give_up(view: _View) -> tuple[GraphAction, ...]:
    """Each that failed leaves the record, then the graph. Where all that may be read failed, it
    is rather this node that lost them: the graph is made again over those that answer."""
    if view.failed and not view.counted_on:
        return (MakeGraph(),)
    away = [
        r.node
        for r in view.replicas(ReplicaState.REBUILDING)
        if not view.member(r) and view.is_silent(r.node)
    ]
    lost = tuple(RecordLost(node, view.healthy) for node in (*view.failed, *away))
    return lost or _mend(view)


def _mend(view: _View) -> tuple[GraphAction, ...]:
    """One that can't give back what it was given leaves, is compared with another, and gets that
    again: a disk puts a sector that went bad elsewhere when it is written."""
    reach = view.seen.reach
    members = view.there.members
    for replica in trusted(view.volume):
        unread = replica.node in reach and reach[replica.node].unread
        others = [
            r.node
            for r in trusted(view.volume)
            if r.node != replica.node and members.get(r.node) is MemberState.READS
        ]
        if (
            unread
            and view.member(replica)
            and any(not reach.get(n, Reach()).unread for n in others)
        ):
            return (RecordLost(replica.node, view.healthy, unread=True),)
    return ()


def _remake(view: _View) -> tuple[GraphAction, ...]:
    """A graph that works is made again where it has too few slots (or need have none), or where
    the volume has grown."""
    needed, has = slots_of(view.volume), view.there.slots
    grown = view.there.size_bytes != view.volume.status.size_bytes
    if grown or needed > has or (needed == 0) != (has == 0):
        return (MakeGraph(in_order=True),)
    return ()


def _put_out(view: _View) -> tuple[GraphAction, ...]:
    """Members that the record does not name: an earlier agent was cut before it dropped them, or
    somebody has no need of them any more."""
    counted = {ReplicaState.IN_SYNC, ReplicaState.REBUILDING}

    def is_counted(node: str) -> bool:
        replica = replica_on(view.volume, node)
        return replica is not None and replica.state in counted

    return tuple(Drop(node) for node in sorted(view.there.members) if not is_counted(node))


def _take_for_good(view: _View) -> tuple[GraphAction, ...]:
    """Who has everything is recorded, after a flush (what was copied to it may be in memory
    there); who is recorded is read."""
    actions = list[GraphAction]()
    members = view.there.members
    for replica in in_sync(view.volume):
        if not replica.suspect and members.get(replica.node) is MemberState.WRITES:
            actions.append(Promote(replica.node))
    done = [r.node for r in _coming(view) if _is_done(view, r)]
    if done:
        actions.append(Flush(forget=False))
        actions.extend(RecordInSync(node) for node in done)
    return tuple(actions)


def _coming(view: _View) -> tuple[Replica, ...]:
    """The members that are to be brought back: rebuilding, or suspect."""
    suspects = (r for r in in_sync(view.volume) if r.suspect)
    return tuple(r for r in (*view.replicas(ReplicaState.REBUILDING), *suspects) if view.member(r))


def _is_done(view: _View, replica: Replica) -> bool:
    missing = _to_bring(view, replica)
    if missing is Missing.DIFFERENCES:
        return view.seen.compared.get(replica.node) == graph_of(view.volume)
    copy = view.seen.copies.get(replica.node)
    return copy is not None and copy.missing is missing and copy.state is CopyState.DONE


def _to_bring(view: _View, replica: Replica) -> Missing:
    return Missing.DIFFERENCES if replica.suspect else missing_now(view.volume, replica)


def _go_on_bringing_back(view: _View) -> tuple[GraphAction, ...]:
    actions = list[GraphAction]()
    for replica in _coming(view):
        missing = _to_bring(view, replica)
        if missing is Missing.DIFFERENCES:
            actions.extend(_comparison(view, replica))
        else:
            actions.extend(_copying(view, replica, missing))
    return tuple(actions)


def _comparison(view: _View, replica: Replica) -> tuple[GraphAction, ...]:
    if replica.node in view.seen.comparing:
        done = view.seen.far.get(replica.node, 0)
        return _progress(replica, done, view.volume.status.size_bytes)
    members = view.there.members
    good = [r.node for r in trusted(view.volume) if members.get(r.node) is MemberState.READS]
    held = view.volume.status.attachment
    against = sorted(good, key=lambda n: (held is None or n != held.node, n))
    return (Compare(replica.node, against[0], view.limits.bytes_per_s),) if against else ()


def _progress(replica: Replica, done: int, total: int) -> tuple[GraphAction, ...]:
    """It is told in steps: each is a write to the store."""
    told = replica.progress
    before = told.done_bytes * STEPS // told.total_bytes if told and told.total_bytes else 0
    if not total or done * STEPS // total == before:
        return ()
    return (NoteProgress(replica.node, done, total),)


def _copying(view: _View, replica: Replica, missing: Missing) -> tuple[GraphAction, ...]:
    copy, speed = view.seen.copies.get(replica.node), view.limits.bytes_per_s
    if copy is not None and copy.missing is missing and copy.state is CopyState.RUNNING:
        return _progress(replica, copy.done_bytes, copy.total_bytes)
    start = StartCopy(replica.node, missing, speed)
    return (start,) if copy is None else (EndCopy(replica.node), start)


def _bring_back(view: _View) -> tuple[GraphAction, ...]:
    """Stale replicas whose hosts answer, as many at once as allowed and as there is room for."""
    coming, free = view.replicas(ReplicaState.REBUILDING), view.there.free_slots
    outside = [r for r in coming if not view.member(r) and _can_come(view, r)]
    actions: list[GraphAction] = [Admit(r.node) for r in outside[: max(free, 0)]]
    room = min(free - len(actions), view.limits.resyncs - len(coming))
    stale = [r for r in view.replicas(ReplicaState.STALE) if _can_come(view, r)]
    stale.sort(key=lambda r: (_COST.index(missing_now(view.volume, r)), r.node))
    actions.extend(BeginResync(r.node) for r in stale[: max(room, 0)])
    return tuple(actions)


_COST = (Missing.NOTHING, Missing.CHANGES, Missing.DIFFERENCES, Missing.ALL)


def _can_come(view: _View, replica: Replica) -> bool:
    reach = view.seen.reach.get(replica.node)
    large_enough = replica.size_bytes >= view.volume.status.size_bytes
    return reach is not None and reach.settled and large_enough and not replica.barred


def _checkpoint(view: _View) -> tuple[GraphAction, ...]:
    if view.changes_wanted() or view.there.changed_bytes < view.limits.checkpoint_bytes:
        return ()
    return (Flush(forget=True),)
