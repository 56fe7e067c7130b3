"""How long networks stay on a node after their last port there."""

import pytest

from trivet.contracts.model import ResourceId
from trivet.network.domain.lingering import LINGERING_BOUND, lingering

A, B = ResourceId("network-a"), ResourceId("network-b")


@pytest.mark.parametrize(
    ("until", "here", "expected"),
    [
        pytest.param({}, set(), {}, id="nothing"),
        pytest.param({}, {A}, {A: 110.0}, id="it is here: counted from now"),
        pytest.param({A: 105.0}, {A}, {A: 110.0}, id="here still"),
        pytest.param({A: 105.0}, set(), {A: 105.0}, id="left: its time runs"),
        pytest.param({A: 100.0}, set(), {}, id="its time is over"),
        pytest.param({A: 105.0}, {B}, {A: 105.0, B: 110.0}, id="another one came"),
    ],
)
def test_until_when(
    until: dict[ResourceId, float], here: set[ResourceId], expected: dict[ResourceId, float]
) -> None:
    assert lingering(until, here, 100.0, 10.0) == expected


def test_those_that_were_left_last_are_kept() -> None:
    names = [ResourceId(f"network-{n}") for n in range(LINGERING_BOUND + 2)]
    until = {name: 101.0 + n for n, name in enumerate(names)}
    assert list(lingering(until, {A}, 100.0, 10.0)) == [*names[2:], A]


def test_without_a_time_none_stays() -> None:
    assert lingering(lingering({}, {A}, 100.0, 0.0), set(), 100.0, 0.0) == {}
