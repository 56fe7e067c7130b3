"""What is done for a snapshot, as tables of states and plans."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trivet.contracts.errors import Refused
from trivet.contracts.model import GIB, ResourceId
from trivet.contracts.resource import Meta, Phase
from trivet.contracts.storage.engine import SnapshotRecord
from trivet.contracts.storage.snapshot import (
    Snapshot,
    SnapshotCopy,
    SnapshotPart,
    SnapshotSpec,
    SnapshotStatus,
)
from trivet.contracts.storage.volume import (
    Attachment,
    Missing,
    Replica,
    ReplicaState,
    Volume,
    VolumeSpec,
    VolumeStatus,
)
from trivet.storage.domain import snapshot_plan as do
from trivet.storage.domain.snapshot_copies import by_place, copied, missed, promises, spread
from trivet.storage.domain.snapshots import newest_of, revert, snapshots_of
from trivet.storage.domain.volume_plan import COPIED_LOOK_S, DELETE_GRACE
from trivet.storage.domain.volume_status import with_replica

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ID, V, W = ResourceId("snapshot-1"), ResourceId("volume-v"), ResourceId("volume-w")
PARTS = tuple(
    SnapshotPart(volume=id_, name=name, node="n1", pool=pool, size_bytes=GIB)
    for id_, name, pool in ((V, "v", "p"), (W, "w", "q"))
)
TAKEN = tuple(p.model_copy(update={"used_bytes": 10}) for p in PARTS)
THERE = tuple(
    SnapshotRecord(snapshot=ID, volume=v, pool=ResourceId("pool-p"), size_bytes=GIB, used_bytes=10)
    for v in (V, W)
)
SUSPECT: dict[str, object] = {"suspect": True}
STALE: dict[str, object] = {"state": ReplicaState.STALE}
CUT = tuple(r.model_copy(update={"complete": False}) for r in THERE)


def snapshot(
    parts: tuple[SnapshotPart, ...] = (), *, taken: bool = False, deleting: bool = False
) -> Snapshot:
    meta = Meta(
        id=ID,
        name="s",
        project="p",
        created_at=NOW,
        deleting_at=NOW if deleting else None,
    )
    status = SnapshotStatus(
        phase=Phase.READY if taken else Phase.PENDING,
        parts=parts,
        taken_at=NOW if taken else None,
        claimed_bytes=sum(by_place(parts).values()),
    )
    return Snapshot(meta=meta, spec=SnapshotSpec(volumes=("v", "w")), status=status)


def volume(*nodes: str, id_: ResourceId = V, held: str | None = None) -> Volume:
    replicas = tuple(
        Replica(node=n, disk="p", state=ReplicaState.IN_SYNC, size_bytes=GIB) for n in nodes
    )
    attachment = Attachment(holder="vm/a", node=held, epoch=1) if held else None
    return Volume(
        meta=Meta(id=id_, name=id_[-1], project="p", created_at=NOW),
        spec=VolumeSpec(size_gib=1),
        status=VolumeStatus(
            phase=Phase.READY, pool="p", replicas=replicas, size_bytes=GIB, attachment=attachment
        ),
    )


ELSEWHERE = tuple(p.model_copy(update={"node": "n2"}) for p in TAKEN)
SPREAD = tuple(p.model_copy(update={"copies": (SnapshotCopy(node="n1"),)}) for p in ELSEWHERE)
COPIED = tuple(
    p.model_copy(update={"copies": (SnapshotCopy(node="n1", complete=True, used_bytes=10),)})
    for p in ELSEWHERE
)
FAILED = snapshot(TAKEN, taken=True).with_status(phase=Phase.FAILED)
ON_NODE: dict[str, tuple[Snapshot, tuple[SnapshotRecord, ...], bool, tuple[do.NodeAction, ...]]] = {
    "to take": (snapshot(PARTS), (), False, (do.Take(),)),
    "cut": (snapshot(PARTS), CUT, False, (do.Take(),)),
    "taken, not told": (snapshot(PARTS), THERE, False, (do.Take(),)),
    "as it should be": (snapshot(TAKEN, taken=True), THERE, False, ()),
    "lost": (snapshot(TAKEN, taken=True), THERE[:1], False, (do.NoteMissing(W),)),
    "to copy": (snapshot(SPREAD, taken=True), (), False, (do.CopyPart(V), do.CopyPart(W))),
    "copied in part": (
        snapshot(SPREAD, taken=True),
        (CUT[0], THERE[1]),
        False,
        (do.CopyPart(V), do.NoteCopied(W)),
    ),
    "to be copied, not cut yet": (snapshot(SPREAD), (), False, ()),
    "a copy is lost": (
        snapshot(COPIED, taken=True),
        THERE[:1],
        False,
        (do.NoteMissing(W),),
    ),
    "one volume's replica left": (
        snapshot((COPIED[0], TAKEN[1].model_copy(update={"node": "n2"})), taken=True),
        THERE,
        False,
        (do.DropPart(W),),
    ),
    "lost and told": (FAILED, (), False, ()),
    "going": (snapshot(TAKEN, taken=True, deleting=True), THERE, False, (do.Drop(),)),
    "going, never taken": (snapshot(PARTS, deleting=True), (), False, (do.Drop(),)),
    "going, still copied": (snapshot(TAKEN, taken=True, deleting=True), THERE, True, ()),
    "not here": (snapshot(), (), False, (do.ReleaseSnapshot(),)),
    "not here any more": (snapshot(), THERE, False, (do.Drop(), do.ReleaseSnapshot())),
}


@pytest.mark.parametrize("case", ON_NODE)
def test_what_a_node_does_for_a_snapshot(case: str) -> None:
    wanted, there, copied, plan = ON_NODE[case]
    assert do.plan_on_node(wanted, "n1", there, copied) == plan


LATE = NOW + DELETE_GRACE + timedelta(seconds=1)
IN_CLUSTER: dict[str, tuple[Snapshot, datetime, bool, tuple[do.ClusterAction, ...]]] = {
    "new": (snapshot(), NOW, False, (do.PlaceSnapshot(),)),
    "can't be": (snapshot().with_status(phase=Phase.FAILED), NOW, False, ()),
    "placed": (snapshot(PARTS), NOW, False, (do.AssignSnapshot("n1"),)),
    "taken": (
        snapshot(TAKEN, taken=True).with_status(claimed_bytes=2 * GIB),
        NOW,
        False,
        (do.SettleClaim(), do.AssignSnapshot("n1")),
    ),
    "settled": (snapshot(TAKEN, taken=True), NOW, False, (do.AssignSnapshot("n1"),)),
    "going": (
        snapshot(TAKEN, taken=True, deleting=True),
        NOW,
        False,
        (do.AssignSnapshot("n1", DELETE_GRACE.total_seconds()),),
    ),
    "going, and the clock was set back": (
        snapshot(TAKEN, taken=True, deleting=True),
        NOW - timedelta(hours=1),
        False,
        (do.ForgetSnapshot(),),
    ),
    "going, its node is silent": (
        snapshot(TAKEN, taken=True, deleting=True),
        LATE,
        False,
        (do.ForgetSnapshot(),),
    ),
    "going, still copied": (
        snapshot(TAKEN, taken=True, deleting=True),
        LATE,
        True,
        (do.AssignSnapshot("n1", COPIED_LOOK_S),),
    ),
    "gone": (snapshot(deleting=True), NOW, False, (do.ForgetSnapshot(),)),
}


@pytest.mark.parametrize("case", IN_CLUSTER)
def test_what_the_cluster_does_for_a_snapshot(case: str) -> None:
    wanted, now, copied, plan = IN_CLUSTER[case]
    assert do.plan_in_cluster(wanted, now, copied) == plan


def test_volumes_are_cut_where_all_have_a_replica() -> None:
    assert do.choose_node([volume("n1", "n2"), volume("n2", "n3")]) == "n2"
    assert do.choose_node([volume("n1", "n2"), volume("n1", "n2", held="n2")]) == "n2"
    assert do.choose_node([volume("n1"), volume("n2")]) is None
    assert do.choose_node([volume("n1", "n2", held="n1")], silent={"n1"}) == "n2"
    suspect = with_replica(volume("n1", "n2"), "n1", lambda r: r.model_copy(update=SUSPECT))
    assert do.choose_node([suspect]) == "n2"


def test_space_is_promised_wherever_it_is_kept() -> None:
    assert by_place(PARTS) == {("p", "n1"): GIB, ("q", "n1"): GIB}
    assert by_place(TAKEN) == {("p", "n1"): 10, ("q", "n1"): 10}
    assert by_place(SPREAD[:1]) == {("p", "n2"): 10, ("p", "n1"): GIB}
    assert by_place(COPIED[:1]) == {("p", "n2"): 10, ("p", "n1"): 10}
    both = [volume("n1", "n2"), volume("n1", "n2", id_=W)]
    same_pool = tuple(p.model_copy(update={"pool": "p"}) for p in TAKEN)
    told = promises(same_pool, {v.meta.id: v for v in both})
    assert told == {"n2": {("p", "n2"): 2 * GIB}}


def nodes(part: SnapshotPart) -> tuple[str, dict[str, bool]]:
    return part.node, {c.node: c.complete for c in part.copies}


def test_a_part_goes_where_the_replicas_go() -> None:
    one, every = TAKEN[0], {"n1", "n2", "n3"}
    both = spread(one, volume("n1", "n2"), every)
    assert nodes(both) == ("n1", {"n2": False})
    assert spread(one, volume("n1", "n2"), ()) == one, "there is no space"
    assert spread(one, None, every) == one
    stale = with_replica(volume("n1", "n2"), "n2", lambda r: r.model_copy(update=STALE))
    assert spread(one, stale, every) == one, "it gets it when it is back"
    assert spread(both, stale, every) == both
    # A replica moves from n1, where it was cut, to n3: nobody lets go before that one has it.
    moved = volume("n2", "n3")
    coming = spread(both, moved, every)
    assert nodes(coming) == ("n1", {"n2": False, "n3": False})
    found = THERE[0]
    half = copied(coming, found, "n3")
    assert spread(half, moved, every) == half
    assert nodes(spread(copied(half, found, "n2"), moved, every)) == ("n2", {"n3": True})


def test_what_is_not_found_any_more_is_copied_again_if_anybody_has_it() -> None:
    whole = copied(spread(TAKEN[0], volume("n1", "n2"), {"n2"}), THERE[0], "n2")
    assert nodes(missed(whole, "n2") or whole) == ("n1", {"n2": False})
    assert nodes(missed(whole, "n1") or whole) == ("n2", {"n1": False})
    assert missed(TAKEN[0], "n1") is None
    assert missed(spread(TAKEN[0], volume("n1", "n2"), {"n2"}), "n1") is None


def test_one_that_can_not_be_cut_where_it_was_to_be_is_cut_elsewhere() -> None:
    both = {v.meta.id: v for v in (volume("n1", "n2"), volume("n1", "n2", id_=W))}
    at_n1 = (do.AssignSnapshot("n1"),)
    assert do.plan_in_cluster(snapshot(PARTS), NOW, False, both) == at_n1
    assert do.plan_in_cluster(snapshot(PARTS), NOW, False, both, {"n1"}) == (do.PlaceElsewhere(),)
    assert do.plan_in_cluster(snapshot(PARTS), NOW, False, both, {"n1", "n2"}) == at_n1
    away = {**both, V: with_replica(both[V], "n1", lambda r: r.model_copy(update=STALE))}
    assert do.plan_in_cluster(snapshot(PARTS), NOW, False, away) == (do.PlaceElsewhere(),)
    taken = snapshot(TAKEN, taken=True)
    assert do.plan_in_cluster(taken, NOW, False, both, {"n1"}) == (do.Spread(), *at_n1)


def test_what_is_not_seen_is_not_judged() -> None:
    taken = snapshot(TAKEN, taken=True)
    assert do.plan_on_node(taken, "n1", (), False, unseen=True) == ()
    assert do.plan_on_node(snapshot(PARTS), "n1", (), False, unseen=True) == (do.Take(),)


def test_a_volume_goes_back_only_while_nobody_holds_it() -> None:
    taken = snapshot(TAKEN, taken=True)
    assert revert(volume("n1"), taken, NOW).status.reverting == ID
    both = revert(volume("n1", "n2"), taken, NOW).status.replicas
    assert [(r.node, r.state, r.missing) for r in both] == [
        ("n1", ReplicaState.IN_SYNC, Missing.NOTHING),
        ("n2", ReplicaState.STALE, Missing.DIFFERENCES),
    ]
    kept = copied(spread(TAKEN[0], volume("n1", "n2"), {"n2"}), THERE[0], "n2")
    there = revert(volume("n2", "n3"), snapshot((kept,), taken=True), NOW).status.replicas
    assert [(r.node, r.state) for r in there] == [
        ("n2", ReplicaState.IN_SYNC),
        ("n3", ReplicaState.STALE),
    ]
    for wrong in (volume("n1", held="n1"), volume("n2")):
        with pytest.raises(Refused):
            revert(wrong, taken, NOW)
    for other in (snapshot(PARTS), snapshot(TAKEN, taken=True, deleting=True)):
        with pytest.raises(Refused):
            revert(volume("n1"), other, NOW)
    with pytest.raises(Refused):
        revert(volume("n1", id_=ResourceId("volume-x")), taken, NOW)


def test_the_newest_snapshot_is_the_one_taken_last() -> None:
    old = snapshot(TAKEN, taken=True)
    new = old.with_status(taken_at=NOW + timedelta(seconds=1)).with_meta(name="t", id="snapshot-2")
    coming = snapshot().with_meta(id="snapshot-3")
    assert newest_of(volume("n1"), [new, old, coming]) == new
    assert newest_of(volume("n1", id_=ResourceId("volume-x")), [new, old]) is None
    assert snapshots_of(volume("n1"), [new, old, coming]) == [new, old, coming]
