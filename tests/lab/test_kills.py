"""Kill -9 of one part after the other, in the middle of work: all converges, nothing is left.

A run has a short sample; `--soak` has `--kills` points from `--seed`, and with `--first` those from
that one on: a campaign can be done in pieces. `--point` does one again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from trivet.testing.lab.campaign import STEADY, Campaign
from trivet.testing.lab.node import LabNode
from trivet.testing.lab.schedule import Point, campaign

pytestmark = pytest.mark.root

SAMPLE = (
    "storage@create+0.4",
    "network@delete+0.1",
    "nats@restart+1.5",
    "qsd@steady+0",
    "libvirtd@create+0.9",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "point" not in metafunc.fixturenames:
        return
    option = metafunc.config.getoption
    words = option("--point") or SAMPLE
    points = [Point.parse(word) for word in words]
    if option("--soak") and not option("--point"):
        points = list(
            itertools.islice(campaign(option("--seed")), option("--first") - 1, option("--kills"))
        )
    metafunc.parametrize("point", points, ids=str)


@pytest.fixture(scope="module")
def kills(lab_node: LabNode, tell_at_the_end: Callable[[str], None]) -> Iterator[Campaign]:
    made = Campaign(lab_node)
    try:
        made.prepare()
        yield made
    finally:
        tell_at_the_end(made.table())
        lab_node.act(STEADY, "delete")


def test_a_kill_in_the_middle(kills: Campaign, point: Point) -> None:
    kills.run(point)
