"""What a storage daemon says of its graph, read as slots and members."""

from __future__ import annotations

import pytest

from trivet.contracts.storage.engine import MemberState
from trivet.plugins.storage.connections import Connection
from trivet.plugins.storage.members import GraphRecord, Member, states
from trivet.plugins.storage.slots import Child, child_of, read_slots

EDGES = (
    ("", "top", "root"),
    ("top", "throttle", "file"),
    ("throttle", "quorum", "file"),
    ("quorum", "slot0", "children.0"),
    ("quorum", "slot1", "children.1"),
    ("quorum", "slot2", "children.2"),
    ("slot0", "r.0", "children.0"),
    ("slot1", "w.5", "children.2"),
    ("slot1", "p.3", "children.1"),
    ("w.5", "r.5", "image"),
    ("r.5", "n.5", "file"),
    ("p.3", "z.3", "image"),
    ("slot2", "p.2", "children.0"),
    ("p.2", "z.2", "image"),
)
"""Slot 1 was left in the middle of a change: from a placeholder to a replica for writes only."""


def graph() -> dict[str, object]:
    names = sorted({name for edge in EDGES for name in edge[:2]})
    ids = {name: number for number, name in enumerate(names)}
    return {
        "nodes": [{"id": ids[name], "name": name} for name in names],
        "edges": [{"parent": ids[p], "child": ids[c], "name": n} for p, c, n in EDGES],
    }


def test_a_slot_holds_what_it_was_changed_to_last() -> None:
    slots = read_slots(graph())
    assert slots.current() == {0: Child("r", 0), 1: Child("w", 5), 2: Child("p", 2)}
    assert slots.children[1] == (Child("p", 3), Child("w", 5))
    assert slots.free() == [2]
    assert (slots.holding(3), slots.holding(5), slots.holding(9)) == (1, 1, None)


def test_a_child_is_found_with_all_that_is_below_it() -> None:
    slots = read_slots(graph())
    assert slots.nodes(Child("r", 0)) == ["r.0"]
    assert slots.nodes(Child("w", 5)) == ["w.5", "r.5", "n.5"]
    assert slots.nodes(Child("p", 3)) == ["p.3", "z.3"]
    assert slots.edge(1, Child("w", 5)) == "children.2"


@pytest.mark.parametrize("name", ["n.1", "c.1", "slot0", "quorum", "r.", "r.x", "r"])
def test_other_nodes_are_no_children(name: str) -> None:
    assert child_of(name) is None


LOCAL, REMOTE = "/run/v.sock", "127.0.0.2 999"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([Connection(1, LOCAL, True), Connection(2, REMOTE, True)], ("reads", "writes")),
        # The other end is gone; or it was connected to again, by another socket.
        ([Connection(1, LOCAL, False), Connection(2, REMOTE, True)], ("failed", "writes")),
        ([Connection(7, LOCAL, True), Connection(2, REMOTE, True)], ("failed", "writes")),
        # Only the copy's connection is left; none is; or it goes somewhere else.
        ([Connection(1, LOCAL, True), Connection(8, REMOTE, True)], ("reads", "failed")),
        ([], ("failed", "failed")),
        ([Connection(1, REMOTE, True)], ("failed", "failed")),
    ],
)
def test_a_member_is_there_while_its_own_connection_is(
    found: list[Connection], expected: tuple[str, str]
) -> None:
    unix = {"type": "unix", "path": LOCAL}
    inet = {"type": "inet", "host": "127.0.0.2", "port": "999"}
    members = {
        0: Member(node="a", export="x", server=unix, inode=1),
        5: Member(node="b", export="y", server=inet, inode=2),
        4: Member(node="c", export="z", server=inet, inode=3),  # in no slot any more
    }
    record = GraphRecord(number=1, size_bytes=1, slots=3, thin=True, next=6, members=members)
    told = states(record, read_slots(graph()).current(), found)
    assert told == {"a": MemberState(expected[0]), "b": MemberState(expected[1])}
