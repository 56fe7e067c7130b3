"""What is done when hosts and disks fail, empty, or are too few: tables, and a little world in
which plans are carried out until nothing is left to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivet.contracts.model import GIB, ResourceId
from trivet.contracts.resource import Meta, Phase
from trivet.contracts.storage.disk import DiskHealth
from trivet.contracts.storage.volume import (
    Attachment,
    Missing,
    Replica,
    ReplicaState,
    Volume,
    VolumeSpec,
    VolumeStatus,
)
from trivet.storage.domain.healing import (
    Add,
    Bar,
    Distrust,
    Drop,
    Heal,
    Hold,
    Leave,
    LetGo,
    Policy,
    condition,
    in_order,
    loads,
    plan,
)
from trivet.storage.domain.places import DiskView, NodeView, Places
from trivet.storage.domain.replication import REPAIR
from trivet.storage.domain.volume_status import (
    removed,
    settled,
    stated,
    told_redundancy,
    with_added,
    with_replica,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = Policy(rebuild_after_s=600, rebuilds_per_node=2)
GOOD, STALE, LEAVING = ReplicaState.IN_SYNC, ReplicaState.STALE, ReplicaState.LEAVING
LOST, MAKING = ReplicaState.LOST, ReplicaState.CREATING


def on(node: str, state: ReplicaState = GOOD, disk: str = "", **more: object) -> Replica:
    made = Replica(node=node, disk=disk or f"{node}-a", state=state, size_bytes=GIB, since=NOW)
    return made.model_copy(update=more)


def volume(*replicas: Replica, wanted: int = 2, held: str = "", name: str = "v") -> Volume:
    meta = Meta(id=ResourceId(f"volume-{name}"), name=name, project="p", created_at=NOW)
    attachment = Attachment(holder="vm/1", node=held, epoch=1) if held else None
    status = VolumeStatus(
        epoch=1, replicas=replicas, attachment=attachment, size_bytes=GIB, claimed_bytes=GIB
    )
    return Volume(meta=meta, spec=VolumeSpec(size_gib=1, replicas=wanted), status=status)


BEGUN = Attachment(holder=REPAIR, node="n1", epoch=1)


def repaired(*replicas: Replica) -> Volume:
    held = BEGUN.model_copy(update={"socket": "/s"})
    return volume(*replicas).with_status(attachment=held)


def places(disks: dict[str, DiskView] | None = None, **nodes: NodeView) -> Places:
    return Places(nodes, disks or {})


SILENT, LONG_SILENT = NodeView(silent_s=6), NodeView(silent_s=700)
GONE, EMPTIES = NodeView(silent_s=700, gone=True), NodeView(maintenance=True, empties=True)
FAILED, ISOLATED = DiskView(DiskHealth.FAILED, "bad"), DiskView(isolated=True)
LATE = NOW + timedelta(seconds=601)


def words(actions: tuple[Heal, ...]) -> list[tuple[str, str]]:
    """The actions without their reasons."""
    return [(type(a).__name__, getattr(a, "node", "")) for a in actions]


CASES: dict[str, tuple[Volume, Places, datetime, list[tuple[str, str]]]] = {
    "as asked": (volume(on("n1"), on("n2")), places(), NOW, []),
    "too few": (volume(on("n1")), places(), NOW, [("Add", "")]),
    "one is coming": (volume(on("n1"), on("n2", MAKING)), places(), NOW, []),
    "too many": (volume(on("n1"), on("n2"), wanted=1), places(), NOW, [("Leave", "n2")]),
    "too many, the holder is on n2": (
        volume(on("n1"), on("n2"), wanted=1, held="n2"),
        places(),
        NOW,
        [("Leave", "n1")],
    ),
    "stale for a while": (volume(on("n1"), on("n2", STALE)), places(), NOW, [("Hold", "n1")]),
    "stale for long": (volume(on("n1"), on("n2", STALE)), places(), LATE, [("Add", "")]),
    "new and waiting for long": (
        volume(on("n1"), on("n2", STALE, missing=Missing.ALL)),
        places(),
        LATE,
        [("Hold", "n1")],
    ),
    "being copied to for long": (
        volume(on("n1"), on("n2", ReplicaState.REBUILDING), held="n3"),
        places(),
        LATE,
        [],
    ),
    "replaced": (
        volume(on("n1"), on("n2", STALE), on("n3")),
        places(),
        LATE,
        [("Leave", "n2")],
    ),
    "back before it was replaced": (
        volume(on("n1"), on("n2"), on("n3", STALE, missing=Missing.ALL)),
        places(),
        NOW,
        [("Leave", "n3")],
    ),
    "silent": (volume(on("n1"), on("n2")), places(n2=SILENT), NOW, []),
    "silent for long, by nobody noticed": (
        volume(on("n1"), on("n2")),
        places(n2=LONG_SILENT),
        NOW,
        [("Distrust", "n2"), ("Add", "")],
    ),
    "all are silent": (
        volume(on("n1"), on("n2")),
        places(n1=LONG_SILENT, n2=LONG_SILENT),
        NOW,
        [],
    ),
    "the last good one is silent": (
        volume(on("n1"), on("n2", STALE)),
        places(n1=LONG_SILENT),
        LATE,
        [],
    ),
    "its node was removed": (
        volume(on("n1"), on("n2", STALE)),
        places(n2=GONE),
        NOW,
        [("Add", "")],
    ),
    "its node is to be emptied": (
        volume(on("n1"), on("n2")),
        places(n2=EMPTIES),
        NOW,
        [("Add", "")],
    ),
    "emptied": (
        volume(on("n1"), on("n2"), on("n3")),
        places(n2=EMPTIES),
        NOW,
        [("Leave", "n2")],
    ),
    "the last good one is on a node to be emptied": (
        volume(on("n2"), wanted=1),
        places(n2=EMPTIES),
        NOW,
        [("Add", "")],
    ),
    "its disk failed": (
        volume(on("n1"), on("n2")),
        places({"n2-a": FAILED}),
        NOW,
        [("Distrust", "n2"), ("Add", "")],
    ),
    "the disk of the last good one failed": (
        volume(on("n2"), on("n1", STALE)),
        places({"n2-a": FAILED}),
        NOW,
        [],
    ),
    "its disk was isolated": (
        volume(on("n1"), on("n2")),
        places({"n2-a": ISOLATED}),
        NOW,
        [("Add", "")],
    ),
    "it is to be moved": (
        volume(on("n1"), on("n2", moving="asked for"), on("n3", MAKING)),
        places(),
        NOW,
        [],
    ),
    "it was moved": (
        volume(on("n1"), on("n2", moving="asked for"), on("n3")),
        places(),
        NOW,
        [("Leave", "n2")],
    ),
    "only a suspect is left besides": (
        volume(on("n1"), on("n2", suspect=True), on("n3", moving="asked for")),
        places(),
        NOW,
        [("Hold", "n1")],
    ),
    "its place is full": (
        volume(on("n1"), on("n2", STALE), held="n1"),
        Places(full=frozenset({("n2", "n2-a")})),
        NOW,
        [("Bar", "n2")],
    ),
    "its place is full, and that is known": (
        volume(on("n1"), on("n2", STALE, barred="n2-a is full on n2")),
        Places(full=frozenset({("n2", "n2-a")})),
        NOW,
        [],
    ),
    "there is room again": (
        volume(on("n1"), on("n2", STALE, barred="n2-a is full on n2"), held="n1"),
        places(),
        NOW,
        [("Bar", "n2")],
    ),
    "full, and in sync: the guest waits with it": (
        volume(on("n1"), on("n2")),
        Places(full=frozenset({("n2", "n2-a")})),
        NOW,
        [],
    ),
    "repaired": (repaired(on("n1"), on("n2")), places(), NOW, [("LetGo", "")]),
    "repaired, as a graph that lives": (
        repaired(on("n1"), on("n2")).with_status(unclean=True),
        places(),
        NOW,
        [("LetGo", "")],
    ),
    "its last graph did not end in order": (
        volume(on("n1"), on("n2")).with_status(unclean=True),
        places(),
        NOW,
        [("Hold", "n1")],
    ),
    "held for repair, and its graph is not made yet": (
        volume(on("n1"), on("n2")).with_status(attachment=BEGUN, unclean=True),
        places(),
        NOW,
        [],
    ),
    "in repair": (repaired(on("n1"), on("n2", STALE)), places(), NOW, []),
    "in repair on a node that fell silent": (
        repaired(on("n2"), on("n3", STALE)),
        places(n1=SILENT),
        NOW,
        [("Hold", "n2")],
    ),
    "two of three are to be moved, one was": (
        volume(on("n1"), on("n2", moving="x"), on("n3", moving="x"), on("n4"), wanted=3, held="n1"),
        places(),
        NOW,
        [("Leave", "n3")],
    ),
    "lost where there is room again": (
        volume(on("n1"), on("n2", LOST)),
        places(),
        NOW,
        [("Drop", "n2"), ("Add", "")],
    ),
    "leaving": (volume(on("n1"), on("n2"), on("n3", LEAVING)), places(), NOW, []),
    "left": (
        volume(on("n1"), on("n2"), on("n3", LEAVING, size_bytes=0)),
        places(),
        NOW,
        [("Drop", "n3")],
    ),
    "leaving, and its node was removed": (
        volume(on("n1"), on("n2"), on("n3", LEAVING)),
        places(n3=GONE),
        NOW,
        [("Drop", "n3")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_done(case: str) -> None:
    given_volume, where, now, expected = CASES[case]
    assert words(plan(given_volume, where, POLICY, now)) == expected


def test_nothing_is_done_for_what_goes_or_goes_back() -> None:
    going = volume(on("n1")).with_meta(deleting_at=NOW)
    assert plan(going, places(), POLICY, NOW) == ()
    back = volume(on("n1")).with_status(reverting="snapshot-1")
    assert plan(back, places(), POLICY, NOW) == ()


def test_the_last_good_copy_on_what_fails_is_told() -> None:
    told = condition(volume(on("n1"), wanted=1), places({"n1-a": ISOLATED}), POLICY, NOW)
    assert "last good copy" in told.message
    assert condition(volume(on("n1"), on("n2")), places(), POLICY, NOW).reason == "AsAsked"


def test_a_volume_is_degraded_while_a_host_with_a_good_replica_is_silent() -> None:
    """Also one that nobody holds: the record is right, and yet one disk less may fail."""
    seen = settled(volume(on("n1"), on("n2")))
    assert seen.status.phase is Phase.READY
    away, back = places(n2=NodeView(silent_s=30)), places()

    def told(where: Places) -> Volume:
        return told_redundancy(seen, condition(seen, where, POLICY, NOW), NOW)

    assert told(back) is seen
    seen = told(away)
    assert seen.status.phase is Phase.DEGRADED
    assert told(away) is seen
    seen = settled(seen)  # somebody else changes it meanwhile
    seen = told(away)
    assert seen.status.phase is Phase.DEGRADED
    assert told(back).status.phase is Phase.READY


def test_the_fewer_good_ones_the_sooner() -> None:
    safe = volume(on("n1"), on("n2"), wanted=3, name="a")
    poor = volume(on("n1"), wanted=3, name="b")
    plans = [(v, plan(v, places(), POLICY, NOW)) for v in (safe, poor)]
    assert [v.meta.name for v, _ in in_order(plans)] == ["b", "a"]


def test_what_a_node_is_busy_with() -> None:
    coming = on("n2", STALE, missing=Missing.ALL)
    assert loads([volume(on("n1"), coming)]) == {"n2": 1}
    assert loads([volume(on("n1"), on("n2", STALE))]) == {}


NODES = ("n1", "n2", "n3", "n4")
STATES = st.sampled_from([GOOD, GOOD, GOOD, STALE, LOST, ReplicaState.REBUILDING, LEAVING])
VIEWS = st.sampled_from([NodeView(), NodeView(), SILENT, LONG_SILENT, GONE, EMPTIES])
DISKS = st.sampled_from([DiskView(), DiskView(), DiskView(), FAILED, ISOLATED])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Volume, Places]:
    nodes = draw(st.lists(st.sampled_from(NODES), min_size=1, max_size=3, unique=True))
    replicas = [on(n, draw(STATES), missing=Missing.DIFFERENCES) for n in nodes]
    made = volume(*replicas, wanted=draw(st.integers(1, 3)))
    disks = {f"{n}-a": draw(DISKS) for n in NODES}
    return made, places(disks, **{n: draw(VIEWS) for n in NODES})


def carried_out(made: Volume, action: Heal, where: Places) -> Volume:
    """What the shell and the nodes make of an action, in a world where copying works."""
    match action:
        case Add():
            taken = {r.node for r in made.status.replicas}
            free = [n for n in NODES if n not in taken and where.refusal(n, f"{n}-a") is None]
            return with_added(made, on(free[0])) if free else made
        case Leave(node, why):
            return with_replica(made, node, lambda r: stated(r, LEAVING, why, NOW))
        case Distrust(node, state, why):
            return with_replica(made, node, lambda r: stated(r, state, why, NOW, Missing.ALL))
        case Drop(node):
            return with_replica(made, node, lambda r: None)
        case Bar(node, why):
            return with_replica(made, node, lambda r: r.model_copy(update={"barred": why}))
        case Hold(node):
            held = Attachment(holder=REPAIR, node=node, epoch=2, socket="/s")
            return made.with_status(attachment=held)
        case LetGo():
            return made.with_status(attachment=None)


def good_in_fact(made: Volume, where: Places) -> list[str]:
    return [
        r.node
        for r in made.status.replicas
        if r.state is GOOD
        and not where.node(r.node).gone
        and where.disk(r.disk).health is not DiskHealth.FAILED
    ]


@settings(max_examples=300)
@given(worlds())
def test_plans_come_to_an_end_and_never_give_up_the_last_good_copy(
    world: tuple[Volume, Places],
) -> None:
    made, where = world
    for _ in range(20):
        actions = plan(made, where, POLICY, NOW)
        before = made
        for action in actions:
            had = good_in_fact(made, where)
            made = carried_out(made, action, where)
            if had:
                assert good_in_fact(made, where), f"{action} gave up the last good copy"
        # A node tells that what left it is gone.
        for replica in made.status.replicas:
            if replica.state is LEAVING:
                made = with_replica(made, replica.node, removed)
        if made == before:
            break
    else:
        pytest.fail(f"it never ends: {made.status.replicas}")
    usable = [n for n in NODES if where.refusal(n, f"{n}-a") is None]
    readable = [r for r in good_in_fact(made, where) if not where.node(r).silent_s]
    if readable and len(usable) >= made.spec.replicas:
        coming = [r for r in made.status.replicas if r.state is not LOST]
        assert len(coming) >= made.spec.replicas
