"""What a node and the cluster do for a volume, as tables of states and plans."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trivet.contracts.model import GIB, ResourceId
from trivet.contracts.resource import Meta, Phase
from trivet.contracts.storage.engine import AttachedVolume, ReplicaRecord
from trivet.contracts.storage.volume import (
    Attachment,
    Qos,
    Replica,
    ReplicaState,
    Volume,
    VolumeSource,
    VolumeSpec,
    VolumeStatus,
)
from trivet.storage.domain.volume_plan import (
    COPIED_LOOK_S,
    DELETE_GRACE,
    Action,
    AssignTo,
    ClaimGrowth,
    EndGraph,
    EndServing,
    Forget,
    GrowReplica,
    LeaveBehind,
    Limit,
    LookAgain,
    MakeGraph,
    MakeReplica,
    NoteDetached,
    NoteLost,
    NoteRemoved,
    NoteReplica,
    Place,
    Release,
    RemoveReplica,
    Seen,
    Settle,
    copied_from,
    plan_in_cluster,
    plan_on_node,
)
from trivet.storage.domain.volume_status import settled

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ID = ResourceId("volume-1")
QOS = Qos()


def replica(state: ReplicaState = ReplicaState.IN_SYNC, size: int = 1, node: str = "n1") -> Replica:
    return Replica(node=node, disk="p", state=state, size_bytes=size * GIB)


def volume(
    *replicas: Replica,
    held: Attachment | None = None,
    deleting: bool = False,
    size: int = 1,
    name: str = "v",
    source: str | None = None,
    claimed: int | None = None,
    qos: Qos = QOS,
) -> Volume:
    meta = Meta(
        id=ID if name == "v" else ResourceId(f"volume-{name}"),
        name=name,
        project="p",
        created_at=NOW,
        deleting_at=NOW if deleting else None,
    )
    spec = VolumeSpec(
        size_gib=size,
        replicas=max(1, len(replicas)),
        source=VolumeSource(volume=source) if source else None,
        qos=qos,
    )
    status = VolumeStatus(
        epoch=3,
        replicas=replicas,
        attachment=held,
        size_bytes=GIB,
        claimed_bytes=size * GIB if claimed is None else claimed * GIB,
    )
    return Volume(meta=meta, spec=spec, status=status)


def record(
    size: int = 1, serving: int | None = None, complete: bool = True, epoch: int = 3
) -> ReplicaRecord:
    return ReplicaRecord(
        volume=ID,
        pool=ResourceId("pool-1"),
        size_bytes=size * GIB,
        generation=1,
        epoch=epoch,
        serving=serving,
        complete=complete,
    )


def held(**changes: object) -> Attachment:
    whole = Attachment(holder="vm/a", node="n1", epoch=3, socket="/s", export="e", size_bytes=GIB)
    return whole.model_copy(update=changes)


def graph(epoch: int = 3, healthy: bool = True, size: int = 1) -> AttachedVolume:
    return AttachedVolume(
        volume=ID,
        epoch=epoch,
        socket="/s",
        export="e",
        healthy=healthy,
        size_bytes=size * GIB if healthy else 0,
    )


MAKING, GOOD = ReplicaState.CREATING, replica()
LEAVES = replica(ReplicaState.LEAVING).model_copy(update={"since": NOW})
CASES: dict[str, tuple[Volume, Seen, tuple[Action, ...]]] = {
    "to be made": (volume(replica(MAKING)), Seen(), (MakeReplica(),)),
    "cut": (volume(replica(MAKING)), Seen(record(complete=False)), (MakeReplica(),)),
    "made, not told": (volume(replica(MAKING)), Seen(record()), (NoteReplica(),)),
    "made, asked to grow since": (
        volume(replica(MAKING), size=2),
        Seen(record()),
        (NoteReplica(),),
    ),
    "as it should be": (volume(GOOD), Seen(record()), ()),
    "to grow": (volume(GOOD, size=2), Seen(record()), (GrowReplica(),)),
    "to grow, not promised yet": (volume(GOOD, size=2, claimed=1), Seen(record()), ()),
    "grown, not told": (volume(GOOD, size=2), Seen(record(2)), (NoteReplica(),)),
    "lost": (volume(GOOD), Seen(), (NoteLost(),)),
    "lost and told": (volume(replica(ReplicaState.LOST)), Seen(), ()),
    "to attach": (volume(GOOD, held=held(socket=None)), Seen(record()), (MakeGraph(3),)),
    "attached": (volume(GOOD, held=held()), Seen(record(serving=3), graph()), ()),
    "attached, broken": (
        volume(GOOD, held=held()),
        Seen(record(serving=3), graph(healthy=False)),
        (MakeGraph(3),),
    ),
    "attached, grown since": (
        volume(GOOD, held=held()).with_status(size_bytes=2 * GIB),
        Seen(record(serving=3), graph()),
        (MakeGraph(3),),
    ),
    "attached and grown, not told": (
        volume(GOOD, held=held()).with_status(size_bytes=2 * GIB),
        Seen(record(serving=3), graph(size=2)),
        (MakeGraph(3),),
    ),
    "attached, other bounds": (
        volume(GOOD, held=held(), qos=Qos(iops=100)),
        Seen(record(serving=3), graph()),
        (Limit(Qos(iops=100)),),
    ),
    "rebooted: the holder must ask": (volume(GOOD, held=held()), Seen(record()), ()),
    "an older graph is here": (
        volume(GOOD, held=held(socket=None)),
        Seen(record(serving=2), graph(2)),
        (EndGraph(), EndServing(3), MakeGraph(3)),
    ),
    "ending": (
        volume(GOOD, held=held(detaching=True)),
        Seen(record(serving=3), graph()),
        (EndGraph(), NoteDetached()),
    ),
    "free, servers idle": (volume(GOOD), Seen(record(serving=3)), (EndServing(4),)),
    "held elsewhere, serving": (volume(GOOD, held=held(node="n2")), Seen(record(serving=3)), ()),
    "moved elsewhere, a graph here": (
        volume(GOOD, held=held(node="n2")),
        Seen(record(serving=3), graph(2)),
        (EndGraph(),),
    ),
    "going": (
        volume(GOOD, deleting=True),
        Seen(record()),
        (EndServing(4), RemoveReplica(), NoteRemoved()),
    ),
    "gone, not told": (volume(GOOD, deleting=True), Seen(), (NoteRemoved(),)),
    "going, but held": (
        volume(GOOD, held=held(), deleting=True),
        Seen(record(serving=3), graph()),
        (),
    ),
    "going, but copied": (volume(GOOD, deleting=True), Seen(record(), copied_from=True), ()),
    "nothing to do with us": (volume(replica(node="n2")), Seen(), (Release(),)),
    "not ours by the record, here in fact": (volume(replica(node="n2")), Seen(record()), ()),
    "not ours any more, and older": (
        volume(replica(node="n2")),
        Seen(record(epoch=2)),
        (EndServing(4), RemoveReplica(), Release()),
    ),
    "not ours any more, but others are too few": (
        volume(replica(ReplicaState.STALE, node="n2")),
        Seen(record(epoch=2)),
        (),
    ),
    "leaving, held by somebody": (
        volume(LEAVES, replica(node="n2"), held=held(node="n2")),
        Seen(record(serving=3)),
        (LookAgain(3.0),),
    ),
    "leaving, held by nobody": (
        volume(LEAVES, replica(node="n2")),
        Seen(record()),
        (EndServing(4), RemoveReplica(), NoteRemoved()),
    ),
    "leaving, its disk is not open": (
        volume(LEAVES, replica(node="n2")),
        Seen(unseen=True),
        (),
    ),
    "left, space not given back yet": (
        volume(replica(ReplicaState.LEAVING, size=0), replica(node="n2")),
        Seen(),
        (),
    ),
    "its disk is not open": (volume(GOOD), Seen(unseen=True), ()),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_node_does(case: str) -> None:
    wanted, seen, plan = CASES[case]
    assert plan_on_node(wanted, "n1", seen, NOW) == plan


@pytest.mark.parametrize("state", ReplicaState)
@pytest.mark.parametrize("seen", [Seen(), Seen(record()), Seen(record(serving=3), graph())])
@pytest.mark.parametrize("there", [None, held(), held(detaching=True), held(node="n2")])
@pytest.mark.parametrize("copied", [True, False])
def test_a_replica_is_removed_only_when_nobody_needs_it(
    state: ReplicaState, seen: Seen, there: Attachment | None, copied: bool
) -> None:
    looked = Seen(seen.record, seen.attached, copied)
    for deleting in (True, False):
        there_is = volume(replica(state), replica(node="n2"), held=there, deleting=deleting)
        plan = plan_on_node(there_is, "n1", looked, NOW)
        if RemoveReplica() in plan:
            assert deleting or state is ReplicaState.LEAVING
            assert there is None or state is ReplicaState.LEAVING
            assert not copied


def test_what_the_cluster_does() -> None:
    assert plan_in_cluster(volume(), NOW) == (Place(),)
    both = settled(volume(replica(), replica(node="n2"), held=held(node="n3")))
    assert plan_in_cluster(both, NOW) == (AssignTo(("n1", "n2", "n3")),)
    assert plan_in_cluster(volume(deleting=True), NOW) == (Forget(),)
    going = volume(GOOD, deleting=True)
    grace = DELETE_GRACE.total_seconds()
    assert plan_in_cluster(going, NOW) == (AssignTo(("n1",)), LookAgain(grace))
    late = NOW + DELETE_GRACE + timedelta(seconds=1)
    assert plan_in_cluster(going, late) == (LeaveBehind(("n1",)), Forget())
    set_back = NOW - timedelta(hours=1)
    assert plan_in_cluster(going, set_back) == plan_in_cluster(going, late)
    grown = volume(GOOD, size=2, claimed=1)
    assert plan_in_cluster(grown, NOW) == (ClaimGrowth(), AssignTo(("n1",)))
    bounded = volume(GOOD)  # which is nothing that a replica would have to answer for
    assert plan_in_cluster(bounded, NOW) == (AssignTo(("n1",)), Settle())
    assert plan_in_cluster(settled(bounded), NOW) == (AssignTo(("n1",)),)


def test_a_source_outlasts_its_copies_however_long_they_take() -> None:
    going = volume(GOOD, deleting=True)
    late = NOW + DELETE_GRACE + timedelta(hours=1)
    assert plan_in_cluster(going, late, True) == (AssignTo(("n1",)), LookAgain(COPIED_LOOK_S))


def test_a_source_stays_until_its_copies_are_made() -> None:
    source = volume(GOOD)
    waiting = volume(name="w", source="v")
    making = volume(replica(MAKING), name="m", source="v").with_status(source=ID)
    made = volume(GOOD, name="d", source="v").with_status(source=ID)
    other = volume(name="o", source="x")
    assert copied_from(source, (waiting,))
    assert copied_from(source, (making,))
    assert not copied_from(source, (made, other, source))


@pytest.mark.parametrize(
    ("replicas", "phase"),
    [
        ((GOOD,), Phase.READY),
        ((replica(MAKING),), Phase.PENDING),
        ((GOOD, replica(MAKING, node="n2")), Phase.PENDING),
        ((GOOD, replica(ReplicaState.LOST, node="n2")), Phase.DEGRADED),
        ((replica(ReplicaState.LOST),), Phase.FAILED),
    ],
)
def test_the_phase_is_what_the_replicas_make_it(
    replicas: tuple[Replica, ...], phase: Phase
) -> None:
    assert settled(volume(*replicas)).status.phase is phase
    assert settled(settled(volume(*replicas))) == settled(volume(*replicas))
