"""What is recorded of replicas, and who is in a new graph: tables of the protocol's steps."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from trivet.contracts.errors import Refused, Retry
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta, Phase
from trivet.contracts.storage.engine import ReplicaRecord
from trivet.contracts.storage.volume import (
    Attachment,
    Graph,
    Missing,
    Replica,
    ReplicaState,
    Volume,
    VolumeSpec,
    VolumeStatus,
)
from trivet.storage.domain.attachment import attach, detach
from trivet.storage.domain.new_graph import begin_graph
from trivet.storage.domain.replication import (
    REPAIR,
    admitted,
    begin_resync,
    compared,
    graph_ended,
    leaving,
    missing_now,
    record_lost,
    resynced,
    slots_of,
)
from trivet.storage.domain.volume_status import found, replica_on

NOW = datetime(2026, 1, 1, tzinfo=UTC)
G = Graph(epoch=3, number=1)
STATE = {
    "good": {"state": ReplicaState.IN_SYNC},
    "suspect": {"state": ReplicaState.IN_SYNC, "suspect": True, "left": Graph(epoch=3, number=1)},
    "old suspect": {
        "state": ReplicaState.IN_SYNC,
        "suspect": True,
        "left": Graph(epoch=1, number=1),
    },
    "changes": {"state": ReplicaState.STALE, "missing": Missing.CHANGES, "left": G},
    "old changes": {
        "state": ReplicaState.STALE,
        "missing": Missing.CHANGES,
        "left": Graph(epoch=3, number=0),
    },
    "new": {"state": ReplicaState.STALE, "missing": Missing.ALL},
    "coming": {"state": ReplicaState.REBUILDING, "missing": Missing.ALL},
    "lost": {"state": ReplicaState.LOST},
}


def volume(*states: str, unclean: bool = True, told: bool = True, **held: Any) -> Volume:
    """A volume held on n1 in graph 3.1, with replicas on n1, n2, ... in these states."""
    replicas = tuple(
        Replica(node=f"n{n + 1}", disk="p", size_bytes=4096, boot="b1", **STATE[state])
        for n, state in enumerate(states)
    )
    attachment = Attachment(
        holder="vm/a",
        node="n1",
        epoch=3,
        number=1,
        socket="/s" if told else None,
        export="e" if told else None,
    ).model_copy(update=held)
    status = VolumeStatus(
        phase=Phase.READY,
        epoch=3,
        size_bytes=4096,
        unclean=unclean,
        replicas=replicas,
        attachment=attachment,
    )
    meta = Meta(id=ResourceId("volume-1"), name="v", project="p", created_at=NOW)
    return Volume(
        meta=meta, spec=VolumeSpec(size_gib=1, replicas=min(len(states), 3)), status=status
    )


def shown(made: Volume) -> list[str]:
    """The replicas in short: state, what is missing, and whether suspect."""
    return [
        f"{r.state}{' ' + r.missing if r.missing is not Missing.NOTHING else ''}"
        f"{' suspect' if r.suspect else ''}"
        for r in made.status.replicas
    ]


@pytest.mark.parametrize(
    ("states", "healthy", "then"),
    [
        (("good", "good"), {"n1"}, "stale changes"),
        (("good", "suspect"), {"n1"}, "stale differences"),
        (("good", "coming"), {"n1"}, "stale all"),
        (("good", "good"), set(), "in_sync"),
        (("good", "good"), {"n2"}, "in_sync"),
        (("suspect", "good"), {"n1"}, "in_sync"),
        (("lost", "good"), {"n1"}, "in_sync"),
        (("changes", "good"), {"n1"}, "in_sync"),
    ],
)
def test_a_failed_replica_leaves_the_record(
    states: tuple[str, ...], healthy: set[str], then: str
) -> None:
    """Never the last that may be read, whoever else there is."""
    lost = record_lost(volume(*states), G, "n2", healthy, "it failed", NOW)
    assert shown(lost)[1] == then


def test_nothing_is_recorded_for_another_graph() -> None:
    """Its epoch may be over, or its graph was made again since."""
    before = volume("good", "good", "coming")
    for other in (Graph(epoch=2, number=1), Graph(epoch=3, number=0)):
        assert record_lost(before, other, "n2", {"n1"}, "", NOW) == before
        assert resynced(before, other, "n3", NOW) == before
        assert graph_ended(before, other) == before
        assert begin_resync(volume("good", "new"), other, "n2", NOW) == volume("good", "new")


def test_a_replica_comes_back() -> None:
    coming = begin_resync(volume("good", "changes"), G, "n2", NOW)
    assert shown(coming) == ["in_sync", "rebuilding changes"]
    assert shown(resynced(coming, G, "n2", NOW)) == ["in_sync", "in_sync"]
    stale = volume("good", "changes")
    assert resynced(stale, G, "n2", NOW) == stale


def test_changes_hold_while_the_graph_lives_that_recorded_them() -> None:
    for state, missing in (("changes", Missing.CHANGES), ("old changes", Missing.DIFFERENCES)):
        there = volume("good", state)
        replica = replica_on(there, "n2")
        assert replica is not None
        assert missing_now(there, replica) is missing
        assert shown(begin_resync(there, G, "n2", NOW))[1] == f"rebuilding {missing}"


def test_a_suspect_is_cleared() -> None:
    assert shown(compared(volume("good", "suspect"), G, "n2", NOW)) == ["in_sync", "in_sync"]
    stale = volume("good", "changes")
    assert compared(stale, G, "n2", NOW) == stale


def test_who_leaves_is_not_the_last_that_may_be_read() -> None:
    assert shown(leaving(volume("good", "good"), "n2", "moved", NOW))[1] == "leaving"
    for states in (("suspect", "good"), ("changes", "good")):
        assert leaving(volume(*states), "n2", "moved", NOW) == volume(*states)


def test_an_end_in_order_leaves_nothing_to_be_compared() -> None:
    ended = graph_ended(volume("good", "good", "changes"), G)
    assert not ended.status.unclean
    assert shown(ended) == ["in_sync", "in_sync", "stale differences"]


ALL = {"n1": "b1", "n2": "b1", "n3": "b1"}
AGAIN = {"n1": "b2", "n2": "b1", "n3": "b1"}


@pytest.mark.parametrize(
    ("before", "boots", "then"),
    [
        (volume("good", "good", unclean=False), ALL, ["in_sync", "in_sync"]),
        (volume("good", "good"), ALL, ["in_sync", "in_sync suspect"]),
        (volume("good", "good"), {"n2": "b1"}, ["stale differences", "in_sync"]),
        (volume("good", "good", unclean=False), {"n1": "b1"}, ["in_sync", "stale differences"]),
        (volume("suspect", "good"), ALL, ["in_sync suspect", "in_sync"]),
        (volume("good", "coming", "changes"), ALL, ["in_sync", "stale all", "stale differences"]),
        (volume("good", "good"), AGAIN, ["stale differences", "in_sync"]),
        (volume("good", "good", told=False), AGAIN, ["in_sync suspect", "in_sync"]),
        (volume("good", "good", unclean=False), AGAIN, ["in_sync", "in_sync"]),
        (volume("good", "suspect", told=False), {"n2": "b1"}, ["stale differences", "in_sync"]),
        (volume("lost", "old suspect", told=False), ALL, ["lost", "in_sync"]),
    ],
    ids=[
        "all are read after an end in order",
        "one is chosen, the others are suspect",
        "who did not answer has missed something",
        "also after an end in order",
        "a suspect is not chosen",
        "what a graph knew ends with it",
        "who started again has lost what was not flushed",
        "a new holder begins as after a power cut",
        "after an end in order all is on disk",
        "suspect since a graph that nobody read",
        "the trusted one is lost for certain",
    ],
)
def test_a_new_graph(before: Volume, boots: dict[str, str], then: list[str]) -> None:
    begun = begin_graph(before, G, "n1", boots, NOW)
    assert shown(begun) == then
    assert begun.status.unclean
    assert begun.status.attachment is not None
    assert begun.status.attachment.number == 2


@pytest.mark.parametrize(
    ("before", "boots"),
    [
        (volume("good", "good"), {}),
        (volume("good", "suspect"), {"n2": "b1"}),
        (volume("good", "old suspect", told=False), {"n2": "b1"}),
        (volume("good", "changes"), {"n1": "b2", "n2": "b1"}),
        (volume("lost", "old suspect"), ALL),
    ],
    ids=[
        "nobody answers",
        "only a suspect answers",
        "only a suspect of an earlier holder answers",
        "the only one has lost what was not flushed",
        "the holder has read what nobody has any more",
    ],
)
def test_a_graph_waits(before: Volume, boots: dict[str, str]) -> None:
    with pytest.raises(Retry):
        begin_graph(before, G, "n1", boots, NOW)


@pytest.mark.parametrize(
    "changes", [{"number": 2}, {"epoch": 4}, {"node": "n2"}, {"detaching": True}]
)
def test_a_graph_that_is_over_begins_no_other(changes: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        begin_graph(volume("good", "good", **changes), G, "n1", ALL, NOW)


def test_slots() -> None:
    assert slots_of(volume("good")) == 0
    assert slots_of(volume("good", "good")) == 3
    moving = volume("good", "new")
    moved = moving.model_copy(update={"spec": VolumeSpec(size_gib=1, replicas=1)})
    assert slots_of(moved) == 2
    assert slots_of(moved.with_status(replicas=moved.status.replicas[:1])) == 0


def test_a_volume_held_for_repair_is_let_go_of_and_then_taken() -> None:
    repaired = volume("good", "good", holder=REPAIR)
    asked = attach(repaired, "vm/b", "n2", None)
    assert asked == detach(repaired, REPAIR)
    with pytest.raises(Retry):
        attach(asked.with_status(replicas=()), "vm/b", "n2", None, impatient=True)
    taken = attach(asked, "vm/b", "n2", None, impatient=True).status.attachment
    assert taken == Attachment(holder="vm/b", node="n2", epoch=4)


@pytest.mark.parametrize(
    ("others", "epoch", "served", "state"),
    [
        (("lost",), 0, 0, ReplicaState.IN_SYNC),
        (("lost",), 3, 0, ReplicaState.STALE),
        (("lost",), 3, 2, ReplicaState.STALE),
        (("lost",), 3, 3, ReplicaState.IN_SYNC),
        (("good",), 3, 3, ReplicaState.STALE),
    ],
    ids=["nobody wrote", "blank", "of an earlier epoch", "of the last epoch", "another is good"],
)
def test_a_blank_replica_never_takes_the_place_of_what_was_lost(
    others: tuple[str, ...], epoch: int, served: int, state: ReplicaState
) -> None:
    given = volume(*others).with_status(epoch=epoch)
    made = Replica(node="n9", disk="p", state=ReplicaState.CREATING)
    record = ReplicaRecord(
        volume=given.meta.id, pool=ResourceId("p-1"), size_bytes=1, generation=1, epoch=served
    )
    assert found(given, made, record, "p", NOW).state is state


def test_a_replica_that_comes_back_tells_which_run_of_its_host_it_is() -> None:
    """Or a later start of that host would not be seen, or this one be taken for a later one."""
    came = admitted(volume("good", "coming"), G, "n2", "b2")
    assert [r.boot for r in came.status.replicas] == ["b1", "b2"]
    other = Graph(epoch=G.epoch, number=G.number + 1)
    assert admitted(came, other, "n2", "b3") == came
