"""What the holder's node does for a replicated volume: tables of what is there, and what then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.storage.test_replication_domain import G, volume

from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import AttachedVolume, MemberState
from trivet.contracts.storage.replication import Copy, CopyState
from trivet.contracts.storage.volume import Graph, Missing, Progress, Volume
from trivet.storage.domain import graph_plan as do
from trivet.storage.domain.graph_plan import GraphSeen, Limits, Reach, plan_graph
from trivet.storage.domain.replication import progressed, resynced
from trivet.storage.domain.volume_status import with_replica

R, W, F = MemberState.READS, MemberState.WRITES, MemberState.FAILED
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits(silent_s=2.0, checkpoint_bytes=100)
SILENT = Reach(silent_s=5.0, settled=False)


def graph(*members: MemberState | None, **changes: Any) -> AttachedVolume:
    """A graph of epoch 3, number 1, with these members on n1, n2, ..."""
    there = {f"n{n + 1}": state for n, state in enumerate(members) if state is not None}
    made = AttachedVolume(
        volume=ResourceId("volume-1"),
        epoch=3,
        number=1,
        socket="/s",
        export="e",
        size_bytes=4096,
        slots=len(members) + 1,
        members=there,
    )
    return made.model_copy(update=changes)


def copy(state: CopyState, missing: Missing = Missing.ALL) -> Copy:
    return Copy(volume=ResourceId("volume-1"), node="n2", missing=missing, state=state)


def planned(before: Volume, there: AttachedVolume | None, **seen: Any) -> tuple[Any, ...]:
    reach = {"n1": Reach(), "n2": Reach(), "n3": Reach(), **seen.pop("reach", {})}
    return plan_graph(before, "n1", GraphSeen(there, reach=reach, **seen), LIMITS)


CASES: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "all is well": ((volume("good", "good"), graph(R, R)), ()),
    "it is to be made": ((volume("good", "good", socket=None), None), (do.MakeGraph(),)),
    "it vanished": ((volume("good", "good"), None), ()),
    "it is let go of": ((volume("good", "good", detaching=True), graph(R, F)), ()),
    "it is held elsewhere": ((volume("good", "good", node="n2"), graph(R, F)), ()),
    "it is broken": ((volume("good"), graph(R, healthy=False)), (do.MakeGraph(),)),
    "it is an earlier one": ((volume("good", "good"), graph(R, R, number=0)), (do.MakeGraph(),)),
    "one in sync is not in it": ((volume("good", "good"), graph(R, None)), (do.MakeGraph(),)),
    "one failed": (
        (volume("good", "good"), graph(R, F)),
        (do.RecordLost("n2", frozenset({"n1"})),),
    ),
    "all failed": ((volume("good", "good"), graph(F, F)), (do.MakeGraph(),)),
    "only a suspect is left": ((volume("good", "suspect"), graph(F, W)), (do.MakeGraph(),)),
    "it grew": (
        (volume("good", "good").with_status(size_bytes=8192), graph(R, R)),
        (do.MakeGraph(in_order=True),),
    ),
    "it has too few slots": (
        (volume("good", "good"), graph(R, R, slots=2)),
        (do.MakeGraph(in_order=True),),
    ),
    "it gets its second replica": (
        (volume("good", "new"), graph(R, slots=0, members={})),
        (do.MakeGraph(in_order=True),),
    ),
    "a member is not counted on": ((volume("good", "changes"), graph(R, R)), (do.Drop("n2"),)),
    "one that is gone is a member": ((volume("good", "lost"), graph(R, R)), (do.Drop("n2"),)),
    "in sync and not read yet": ((volume("good", "good"), graph(R, W)), (do.Promote("n2"),)),
    "a stale one may come": ((volume("good", "new"), graph(R, None)), (do.BeginResync("n2"),)),
    "recorded, and not admitted": ((volume("good", "coming"), graph(R, None)), (do.Admit("n2"),)),
    "a suspect is to be compared": (
        (volume("good", "suspect"), graph(R, W)),
        (do.Compare("n2", "n1", 0),),
    ),
    "it is copied to": (
        (volume("good", "coming"), graph(R, W)),
        (do.StartCopy("n2", Missing.ALL, 0),),
    ),
    "much was written": (
        (volume("good", "good"), graph(R, R, changed_bytes=200)),
        (do.Flush(forget=True),),
    ),
}


UNREAD = Reach(unread=True)


def test_one_that_can_not_give_back_what_it_was_given_is_mended() -> None:
    """It leaves, and comes back by a comparison, while another can be read; one at a time."""
    both, reads = volume("good", "good"), graph(R, R)
    (lost,) = planned(both, reads, reach={"n2": UNREAD})
    assert lost == do.RecordLost("n2", frozenset({"n1", "n2"}), unread=True)
    assert planned(both, reads, reach={"n1": UNREAD, "n2": UNREAD}) == ()
    assert planned(volume("good", "suspect"), graph(R, W), reach={"n1": UNREAD}) == (
        do.Compare("n2", "n1", 0),
    )
    # One whose connection ended has failed, and missed only what is written now.
    assert planned(both, graph(R, F), reach={"n2": UNREAD}) == (
        do.RecordLost("n2", frozenset({"n1"})),
    )


@pytest.mark.parametrize("case", CASES)
def test_what_is_done(case: str) -> None:
    (before, there), then = CASES[case]
    assert planned(before, there) == then


@pytest.mark.parametrize(
    ("state", "then"),
    [
        (CopyState.RUNNING, ()),
        (CopyState.DONE, (do.Flush(forget=False), do.RecordInSync("n2"))),
        (CopyState.FAILED, (do.EndCopy("n2"), do.StartCopy("n2", Missing.ALL, 0))),
    ],
)
def test_a_copy(state: CopyState, then: tuple[Any, ...]) -> None:
    """What was copied is on disk before it is recorded."""
    assert planned(volume("good", "coming"), graph(R, W), copies={"n2": copy(state)}) == then


def test_how_far_it_is_is_told_in_steps() -> None:
    """Not each time it is looked: a step is a write to the store."""

    def at(done: int) -> Copy:
        return copy(CopyState.RUNNING).model_copy(update={"done_bytes": done, "total_bytes": 1000})

    coming, there = volume("good", "coming"), graph(R, W)
    assert planned(coming, there, copies={"n2": at(49)}) == ()
    assert planned(coming, there, copies={"n2": at(250)}) == (do.NoteProgress("n2", 250, 1000),)
    then = NOW + timedelta(seconds=10)
    began = with_replica(coming, "n2", lambda r: r.model_copy(update={"since": NOW}))
    told = progressed(began, G, "n2", 250, 1000, then)
    replica = told.status.replicas[1]
    assert replica.progress == Progress(done_bytes=250, total_bytes=1000, left_s=30.0)
    assert planned(told, there, copies={"n2": at(290)}) == ()
    assert planned(told, there, copies={"n2": at(300)}) == (do.NoteProgress("n2", 300, 1000),)
    assert resynced(told, G, "n2", then).status.replicas[1].progress is None
    assert progressed(told, Graph(epoch=3, number=9), "n2", 500, 1000, then) is told
    compared = {"comparing": frozenset({"n2"}), "far": {"n2": 2048}}
    suspect = planned(volume("good", "suspect"), there, **compared)
    assert suspect == (do.NoteProgress("n2", 2048, 4096),)


def test_a_copy_of_something_else_is_begun_again() -> None:
    done = {"n2": copy(CopyState.DONE, Missing.CHANGES)}
    then = (do.EndCopy("n2"), do.StartCopy("n2", Missing.ALL, 0))
    assert planned(volume("good", "coming"), graph(R, W), copies=done) == then


def test_a_comparison() -> None:
    before, there = volume("good", "suspect"), graph(R, W)
    assert planned(before, there, comparing=frozenset({"n2"})) == ()
    then = (do.Flush(forget=False), do.RecordInSync("n2"))
    assert planned(before, there, compared={"n2": G}) == then
    earlier = {"n2": Graph(epoch=3, number=0)}
    assert planned(before, there, compared=earlier) == (do.Compare("n2", "n1", 0),)


def test_who_is_silent_is_broken_off_first() -> None:
    silent = {"n2": SILENT}
    assert planned(volume("good", "good"), graph(R, R), reach=silent) == (do.BreakOff("n2"),)
    failed = planned(volume("good", "good"), graph(R, F), reach=silent)
    assert failed == (do.RecordLost("n2", frozenset({"n1"})),)


def test_who_is_not_settled_does_not_come_yet() -> None:
    before, there = volume("good", "new"), graph(R, None)
    assert planned(before, there, reach={"n2": Reach(settled=False)}) == ()


def test_what_somebody_wants_is_not_forgotten() -> None:
    before, there = volume("good", "changes"), graph(R, None, changed_bytes=200)
    assert planned(before, there, reach={"n2": SILENT}) == ()


def test_only_so_many_come_at_once() -> None:
    """Those that miss least first, as there is room."""
    before = volume("good", "new", "changes")
    both = planned(before, graph(R, None, None))
    assert both == (do.BeginResync("n3"), do.BeginResync("n2"))
    before = volume("good", "new", "changes", "new")
    there = graph(R, None, None, None)
    reach = {"n4": Reach()}
    assert planned(before, there, reach=reach) == both


def test_one_that_is_too_small_grows_first() -> None:
    before = volume("good", "new")
    small = [
        r.model_copy(update={"size_bytes": 1024 * (4 - n)})
        for n, r in enumerate(before.status.replicas)
    ]
    assert planned(before.with_status(replicas=tuple(small)), graph(R, None)) == ()
