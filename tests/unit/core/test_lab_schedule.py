"""The lab's pure parts: which points a seed gives, and what of two inventories is a leak."""

import itertools

import pytest

from trivet.testing.lab.inventory import Inventory, difference
from trivet.testing.lab.schedule import LONGEST_S, During, Part, Point, campaign

PAIRS = len(Part) * len(During)


def points(seed: int, number: int) -> list[Point]:
    return list(itertools.islice(campaign(seed), number))


def test_a_point_is_told_in_a_word_and_understood_again():
    for point in points(1, PAIRS):
        assert Point.parse(str(point)) == point
    assert Point.parse("nats@create+0.5") == Point(Part.NATS, During.CREATE, 0.5)


@pytest.mark.parametrize("word", ["", "nats", "nats@create", "moon@create+1", "nats@create+x"])
def test_what_is_no_point_is_refused(word: str):
    with pytest.raises(ValueError, match=r"point|valid"):
        Point.parse(word)


def test_a_seed_gives_the_same_points_again_and_another_gives_others():
    assert points(7, 100) == points(7, 100)
    assert points(7, 100) != points(8, 100)


def test_a_campaign_covers_every_pair_before_it_repeats_one():
    drawn = points(3, PAIRS)
    assert len({(p.part, p.during) for p in drawn}) == PAIRS
    assert all(0 <= p.after_s <= LONGEST_S[p.during] for p in drawn)


def test_alike_inventories_do_not_differ():
    held = Inventory.of(links=["a", "b"], keys=["k"])
    assert difference(held, Inventory.of(keys=["k"], links=["b", "a"])) == []


def test_what_came_went_or_doubled_is_told():
    before = Inventory.of(links=["a", "b"], keys=["k"])
    after = Inventory.of(links=["a", "a"], files=["f"], keys=["k"])
    assert difference(before, after) == ["+1 files f", "+1 links a", "-1 links b"]


def test_slack_is_of_a_whole_kind_and_bounded():
    before = Inventory.of(tasks=["x", "y"], links=["a"])
    grown = Inventory.of(tasks=["x", "y", "z", "z"], links=["a"])
    assert difference(before, grown, {"tasks": 2}) == []
    assert difference(before, grown, {"tasks": 1}) == ["+2 tasks z"]
    assert difference(before, Inventory.of(links=["b"]), {"tasks": 0}) == [
        "-1 links a",
        "+1 links b",
    ]
