"""Kill -9 of one part after the other, in the middle of work: all converges, nothing is left.

A run has a short sample; `--soak` has `--kills` points from `--seed`. `--point` does one again.
An instance that `TRIVET_ROOT` names is used as it is, and kept; else one is made and purged.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trivet.host.layout import Layout
from trivet.testing.lab.campaign import Campaign
from trivet.testing.lab.node import LabNode
from trivet.testing.lab.schedule import Point, campaign

pytestmark = pytest.mark.root

TOP = Path(__file__).parents[2]
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
        points = list(itertools.islice(campaign(option("--seed")), option("--kills")))
    metafunc.parametrize("point", points, ids=str)


@pytest.fixture(scope="module")
def kills(
    tmp_path_factory: pytest.TempPathFactory, tell_at_the_end: Callable[[str], None]
) -> Iterator[Campaign]:
    given = os.environ.get("TRIVET_ROOT")
    root = Path(given) if given else Path("/tmp") / tmp_path_factory.mktemp("kills").name
    node = LabNode(Layout(root), TOP)
    try:
        if not given:
            node.trivet("up")
            node.trivet("image", "build-tiny")
        made = Campaign(node)
        made.prepare()
        yield made
        tell_at_the_end(made.table())
    finally:
        if given:
            node.act("steady", "delete")
        else:
            node.trivet("down", "--purge")


def test_a_kill_in_the_middle(kills: Campaign, point: Point) -> None:
    kills.run(point)
