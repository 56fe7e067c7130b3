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
from trivet.storage.domain.snapshots import newest_of, revert, snapshots_of
from trivet.storage.domain.volume_plan import COPIED_LOOK_S, DELETE_GRACE

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
        claimed_bytes=sum(do.by_pool(parts).values()),
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


FAILED = snapshot(TAKEN, taken=True).with_status(phase=Phase.FAILED)
ON_NODE: dict[str, tuple[Snapshot, tuple[SnapshotRecord, ...], bool, tuple[do.NodeAction, ...]]] = {
    "to take": (snapshot(PARTS), (), False, (do.Take(),)),
    "cut": (snapshot(PARTS), CUT, False, (do.Take(),)),
    "taken, not told": (snapshot(PARTS), THERE, False, (do.Take(),)),
    "as it should be": (snapshot(TAKEN, taken=True), THERE, False, ()),
    "lost": (snapshot(TAKEN, taken=True), THERE[:1], False, (do.NoteMissing(),)),
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
    assert do.by_pool(PARTS) == {"p": GIB, "q": GIB}
    assert do.by_pool(TAKEN) == {"p": 10, "q": 10}


def test_a_volume_goes_back_only_while_nobody_holds_it() -> None:
    taken = snapshot(TAKEN, taken=True)
    assert revert(volume("n1"), taken, NOW).status.reverting == ID
    both = revert(volume("n1", "n2"), taken, NOW).status.replicas
    assert [(r.node, r.state, r.missing) for r in both] == [
        ("n1", ReplicaState.IN_SYNC, Missing.NOTHING),
        ("n2", ReplicaState.STALE, Missing.DIFFERENCES),
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
