"""Who is rotten where replicas differ, as tables; what is kept of blocks that were right."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.contracts.model import ResourceId
from trivet.contracts.storage.replication import UNREADABLE
from trivet.storage.domain.scrub import Block, Rot, judge, unchanged
from trivet.storage.node.sums import Sums

A, B, C = "n1", "n2", "n3"
BAD = UNREADABLE


def block(hashes: dict[str, str], stored: dict[str, str | None] | None = None) -> Block:
    return Block(hashes, stored or dict.fromkeys(hashes))


@pytest.mark.parametrize(
    ("given_block", "expected"),
    [
        (block({A: "x", B: "x"}), Rot()),
        (block({A: "x", B: "y"}), Rot(decided=False)),
        (block({A: "x", B: "y"}, {A: "x", B: "x"}), Rot(frozenset({B}))),
        (block({A: "y", B: "x"}, {A: "x", B: "x"}), Rot(frozenset({A}))),
        (block({A: "y", B: "x"}, {A: None, B: "x"}), Rot(frozenset({A}))),
        (block({A: "y", B: "z"}, {A: "x", B: "x"}), Rot(decided=False)),
        (block({A: "y", B: "z"}, {A: "x", B: "z"}), Rot(decided=False)),
        (block({A: "x", B: "x", C: "y"}), Rot(frozenset({C}))),
        (block({A: "x", B: "y", C: "z"}), Rot(decided=False)),
        (block({A: "x", B: "y", C: "y"}, {A: "x", B: "x", C: "x"}), Rot(frozenset({B, C}))),
        (block({A: "", B: "y"}, {A: "", B: ""}), Rot(frozenset({B}))),
        (block({A: "x", B: BAD}), Rot(frozenset({B}))),
        (block({A: "x", B: BAD}, {A: "x", B: "x"}), Rot(frozenset({B}))),
        (block({A: BAD, B: BAD}), Rot(decided=False)),
        (block({A: "x", B: "y", C: BAD}), Rot(decided=False)),
        (block({A: "x", B: "x", C: BAD}), Rot(frozenset({C}))),
    ],
)
def test_who_is_rotten(given_block: Block, expected: Rot) -> None:
    assert judge(given_block) == expected


@given(st.sampled_from([A, B]), st.text(min_size=1, max_size=3), st.text(min_size=1, max_size=3))
def test_one_flip_since_the_last_scrub_is_always_found(side: str, right: str, flip: str) -> None:
    hashes = {A: right, B: right} | {side: right + flip}
    assert judge(block(hashes, {A: right, B: right})) == Rot(frozenset({side}))


def test_where_writes_are_on_their_way_nothing_is_judged() -> None:
    before = [block({A: "x", B: "y"}), block({A: "x", B: "y"})]
    after = [block({A: "x", B: "x"}), block({A: "x", B: "y"})]
    assert unchanged(before, after) == [False, True]


def test_what_was_right_is_kept(tmp_path: Path) -> None:
    sums, id_ = Sums(tmp_path / "sums"), ResourceId("volume-1")
    assert sums.read(id_, 0, 2) == (None, None)
    sums.write(id_, 2, ("c", ""))
    assert sums.read(id_, 0, 5) == (None, None, "c", "", None)
    sums.write(id_, 0, ("a", "b"))
    assert sums.read(id_, 1, 2) == ("b", "c")
    sums.keep_only(set())
    assert sums.read(id_, 0, 1) == (None,)
