"""What is done for a volume's replicas when hosts and disks fail, empty, or fill unevenly: pure.

Every replica is judged by a ladder, first match wins: what is certainly lost, what may come
back, what is good but wanted elsewhere, what is simply good. From these verdicts follows the
plan. What is lost for certain, or has been stale for `rebuild_after_s`, gets a replacement on
another host, made empty and brought in sync by the holder's node; what is good but wanted
elsewhere stays until its replacement is in sync. A replica goes only when as many others as are
asked for are in sync: so the last good copy is never given up, and where it lies on something
that fails, that is said and it stays.

New copies begin in the order of how few good ones are left, and only so many at once on a node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from trivet.contracts.resource import Condition
from trivet.contracts.storage.disk import DiskHealth
from trivet.contracts.storage.volume import Missing, Replica, ReplicaState, Volume
from trivet.storage.domain.places import Places
from trivet.storage.domain.replication import held_for_repair
from trivet.storage.domain.volume_status import in_sync


@dataclass(frozen=True)
class Policy:
    """The settings: a replica that is stale for longer is replaced; how many are brought in sync
    on a node at once."""

    rebuild_after_s: float = 600.0
    rebuilds_per_node: int = 2


class Verdict(Enum):
    """What is to become of a replica."""

    KEEP = "keep"
    WAIT = "wait"
    MOVE = "move"
    REPLACE = "replace"
    GOING = "going"
    REMOVED = "removed"


@dataclass(frozen=True)
class Judged:
    """A replica, what is to become of it, and why; `away`: its host or disk is not there now."""

    replica: Replica
    verdict: Verdict
    why: str = ""
    away: bool = False


@dataclass(frozen=True)
class Add:
    """Find a place for one more replica, and record it; `after` names the one it is made for."""

    why: str


@dataclass(frozen=True)
class Leave:
    """Record that the replica on `node` is not needed any more."""

    node: str
    why: str


@dataclass(frozen=True)
class Drop:
    """Give back the space of the replica that was on `node`, and forget it."""

    node: str


@dataclass(frozen=True)
class Distrust:
    """Record that the replica on `node` is not to be counted on."""

    node: str
    state: ReplicaState
    why: str


@dataclass(frozen=True)
class Bar:
    """Record why the replica on `node` is not to be brought back for now ('': it may be again)."""

    node: str
    why: str


@dataclass(frozen=True)
class Hold:
    """Hold the volume, which nobody holds, on `node` for as long as its replicas are repaired."""

    node: str


@dataclass(frozen=True)
class LetGo:
    """Let go of a volume that was held for repair."""


Loads = Counter[str]
Heal = Bar | Hold | LetGo | Add | Leave | Drop | Distrust


def judge(replica: Replica, places: Places, policy: Policy, now: datetime) -> Judged:
    """What is to become of a replica where it is."""
    node, disk = places.node(replica.node), places.disk(replica.disk)
    if replica.state is ReplicaState.LEAVING:
        removed = node.gone or disk.health is DiskHealth.FAILED or not replica.size_bytes
        return Judged(replica, Verdict.REMOVED if removed else Verdict.GOING, replica.reason)
    if node.gone:
        return Judged(replica, Verdict.REPLACE, f"{replica.node} was removed from the cluster")
    if replica.state is ReplicaState.LOST:
        return Judged(replica, Verdict.REPLACE, replica.reason or "it is lost")
    if disk.health is DiskHealth.FAILED:
        return Judged(replica, Verdict.REPLACE, _of_disk(replica, "failed", disk.why))
    for away_s, what in (
        (disk.missing_s, f"disk {replica.disk} is not found"),
        (node.silent_s, f"{replica.node} is not heard from"),
    ):
        if away_s:
            long = away_s >= policy.rebuild_after_s
            return Judged(replica, Verdict.REPLACE if long else Verdict.WAIT, what, away=True)
    if node.empties:
        return Judged(replica, Verdict.MOVE, f"{replica.node} is being emptied")
    if disk.empties:
        return Judged(replica, Verdict.MOVE, _of_disk(replica, "isolated", disk.why))
    if replica.moving:
        return Judged(replica, Verdict.MOVE, replica.moving)
    if replica.state is ReplicaState.STALE and replica.missing is not Missing.ALL:
        stale_s = (now - replica.since).total_seconds() if replica.since else 0.0
        long = stale_s >= policy.rebuild_after_s
        return Judged(replica, Verdict.REPLACE if long else Verdict.WAIT, replica.reason)
    return Judged(replica, Verdict.KEEP)


def _of_disk(replica: Replica, what: str, why: str) -> str:
    return f"disk {replica.disk} is {what}" + (f": {why}" if why else "")


def plan(volume: Volume, places: Places, policy: Policy, now: datetime) -> tuple[Heal, ...]:
    """What is to be done for a volume now, in order; `()` where its replicas are as they should
    be, where nothing can be done, and for one that is still being made or goes back."""
    status = volume.status
    if volume.meta.deleting_at is not None:
        return (LetGo(),) if _is_held_for_repair(volume) else ()
    if status.reverting is not None:
        return ()
    judged = [judge(r, places, policy, now) for r in status.replicas]
    readable = [j for j in judged if _is_readable(j)]
    actions: list[Heal] = [Drop(j.replica.node) for j in judged if j.verdict is Verdict.REMOVED]
    if not readable:
        return tuple(actions)
    actions += _distrusted(judged)
    actions += _barred(judged, places)
    going = _not_needed(volume, judged, readable)
    actions += going
    coming = [j for j in judged if j.verdict in (Verdict.KEEP, Verdict.WAIT)]
    if not going and len(coming) < volume.spec.replicas:
        bad = next((j for j in judged if j.verdict in (Verdict.REPLACE, Verdict.MOVE)), None)
        actions += _room_again(judged, places)
        actions.append(Add(bad.why if bad else f"{volume.spec.replicas} are asked for"))
    leaving = {a.node for a in going if isinstance(a, Leave)}
    staying = [j for j in judged if j.replica.node not in leaving]
    return (*actions, *_repair(volume, staying, readable, places))


def _not_needed(volume: Volume, judged: Sequence[Judged], readable: Sequence[Judged]) -> list[Heal]:
    """What may go: of those in sync what is too much, the ones that are wanted elsewhere first;
    what is bad once enough others can be read; and what is still on its way once enough others
    are good where they are."""
    wanted = volume.spec.replicas
    if len(readable) < wanted:
        return []
    staying = {j.replica.node for j in _best(volume, readable)[:wanted]}
    settled = all(j.verdict is Verdict.KEEP for j in readable if j.replica.node in staying)

    def goes(one: Judged) -> bool:
        if one.verdict in _ENDING or one.replica.node in staying:
            return False
        return settled or one.verdict is Verdict.REPLACE or one in readable

    return [Leave(j.replica.node, j.why or f"{wanted} are asked for") for j in judged if goes(j)]


def _repair(
    volume: Volume, judged: Sequence[Judged], readable: Sequence[Judged], places: Places
) -> list[Heal]:
    """Replicas are brought in sync by whoever holds the volume; where nobody does, storage."""
    held = volume.status.attachment
    if held is not None and not held_for_repair(held):
        return []
    needed = any(_needs_repair(j) for j in judged)
    if held is None:
        # A graph that did not end in order may have left replicas that differ.
        differ = volume.status.unclean and len(in_sync(volume)) > 1
        return [Hold(readable[0].replica.node)] if needed or differ else []
    if held.detaching:
        return []
    if places.node(held.node).silent_s or places.node(held.node).gone:
        return [Hold(readable[0].replica.node)] if readable[0].replica.node != held.node else []
    # Only a graph that was made has told who is suspect.
    return [LetGo()] if held.socket is not None and not needed else []


def _needs_repair(judged: Judged) -> bool:
    """Whether it could be brought in sync where it is now."""
    replica = judged.replica
    if judged.verdict not in (Verdict.KEEP, Verdict.WAIT) or replica.barred or judged.away:
        return False
    behind = replica.state in (ReplicaState.STALE, ReplicaState.REBUILDING)
    return behind or (replica.state is ReplicaState.IN_SYNC and replica.suspect)


def _is_held_for_repair(volume: Volume) -> bool:
    held = volume.status.attachment
    return held is not None and held_for_repair(held) and not held.detaching


_ENDING = (Verdict.GOING, Verdict.REMOVED)


def _is_good(judged: Judged) -> bool:
    return judged.replica.state is ReplicaState.IN_SYNC and not judged.replica.suspect


def _is_readable(judged: Judged) -> bool:
    """Whether a copy can be made from it now."""
    return _is_good(judged) and judged.verdict in (Verdict.KEEP, Verdict.MOVE)


def _distrusted(judged: Sequence[Judged]) -> list[Heal]:
    """In sync by the record, and not there any more. (Asked only where another can be read: the
    last one in sync is waited for.)"""
    return [
        Distrust(j.replica.node, ReplicaState.STALE, j.why)
        for j in judged
        if j.replica.state is ReplicaState.IN_SYNC and j.verdict is Verdict.REPLACE
    ]


def _barred(judged: Sequence[Judged], places: Places) -> list[Heal]:
    """A replica that missed writes is not brought back to where there is no room, or to a disk
    that is not well: it would fail again, and the guest would wait each time."""
    told: list[Heal] = []
    for one in judged:
        replica = one.replica
        if one.verdict in _ENDING:
            continue
        behind = replica.state in (ReplicaState.STALE, ReplicaState.REBUILDING)
        why = places.bar(replica.node, replica.disk) if behind else ""
        if why != replica.barred:
            told.append(Bar(replica.node, why))
    return told


def _room_again(judged: Sequence[Judged], places: Places) -> list[Heal]:
    """What is lost on a node that can take a replica again makes room for that."""
    return [
        Drop(j.replica.node)
        for j in judged
        if j.replica.state is ReplicaState.LOST and places.node(j.replica.node).refusal("") is None
    ]


def _best(volume: Volume, good: Sequence[Judged]) -> list[Judged]:
    """Those that are to stay first: not wanted elsewhere, then where the holder runs, then where
    it was asked for."""
    held, nodes = volume.status.attachment, volume.spec.nodes

    def rank(judged: Judged) -> tuple[bool, bool, int]:
        replica = judged.replica
        named = nodes.index(replica.node) if replica.node in nodes else len(nodes)
        local = held is not None and held.node == replica.node
        return (judged.verdict is Verdict.MOVE, not local, named)

    return sorted(good, key=rank)


def loads(volumes: Iterable[Volume]) -> Counter[str]:
    """How many replicas are being brought in sync, by node."""
    return Counter(
        r.node
        for v in volumes
        if v.meta.deleting_at is None
        for r in v.status.replicas
        if _syncs(r)
    )


def repairs(volumes: Iterable[Volume]) -> Counter[str]:
    """How many volumes are held for repair, by node."""
    held = (v.status.attachment for v in volumes)
    return Counter(a.node for a in held if a is not None and held_for_repair(a))


def _syncs(replica: Replica) -> bool:
    if replica.state in (ReplicaState.CREATING, ReplicaState.STALE):
        return replica.missing is Missing.ALL
    return replica.state is ReplicaState.REBUILDING


def in_order(
    plans: Iterable[tuple[Volume, tuple[Heal, ...]]],
) -> list[tuple[Volume, tuple[Heal, ...]]]:
    """Plans, the ones first whose volumes have the fewest good copies; equal ones by key."""
    return sorted(
        plans,
        key=lambda pair: (len(in_sync(pair[0])), pair[0].meta.project or "", pair[0].meta.name),
    )


def _because(why: str) -> str:
    return f" ({why})" if why else ""


def condition(volume: Volume, places: Places, policy: Policy, now: datetime) -> Condition:
    """What is told of a volume's redundancy; its words change only when something does."""
    judged = [judge(r, places, policy, now) for r in volume.status.replicas]
    good = [j for j in judged if _is_readable(j)]
    wanted = volume.spec.replicas
    told = [
        f"{j.replica.node}: {j.replica.state}{_because(j.replica.barred or j.why)}"
        for j in judged
        if j.verdict is not Verdict.KEEP or not _is_good(j)
    ]
    if len(good) == 1 and good[0].verdict is Verdict.MOVE:
        told.append(f"{good[0].replica.node} has the last good copy, which stays until another is")
    if len(good) >= wanted and not told:
        return Condition(type="Redundant", status="true", reason="AsAsked")
    reason = "NoneToReadFrom" if not good else "TooFew" if len(good) < wanted else "Moving"
    status = "false" if len(good) < wanted else "true"
    return Condition.model_validate(
        {
            "type": "Redundant",
            "status": status,
            "reason": reason,
            "message": f"{len(good)} of {wanted} are good; {'; '.join(told)}",
        }
    )
