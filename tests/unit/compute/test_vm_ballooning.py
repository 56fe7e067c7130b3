"""Who gives memory back when a node is short of it: never below a floor, nor what is used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.compute.domain.ballooning import Guest, targets
from trivet.contracts.compute.balloon import HostMemory
from trivet.contracts.model import ResourceId

A, B = ResourceId("vm-a"), ResourceId("vm-b")
RESERVE = 1024


def guest(
    id_: ResourceId = A, target: int = 1024, floor: int = 256, available: int | None = 900
) -> Guest:
    return Guest(id_, most_mib=1024, floor_mib=floor, target_mib=target, available_mib=available)


@pytest.mark.parametrize(
    ("available", "guests", "wanted"),
    [
        (2000, [guest()], {}),
        (800, [guest()], {}),
        (500, [guest()], {A: 1024 - 524}),
        (100, [guest()], {A: 256}),
        (100, [guest(available=132)], {A: 924}),
        (100, [guest(available=None)], {}),
        (100, [guest(floor=1024)], {}),
        (400, [guest(A), guest(B, floor=640)], {A: 1024 - 416, B: 1024 - 208}),
        (1000, [guest(target=256)], {}),
        (1324, [guest(target=256)], {A: 556}),
        (9000, [guest(target=256)], {A: 1024}),
        (1034, [guest(target=256)], {}),
        (9000, [guest(target=1020)], {A: 1024}),
    ],
)
def test_table(available: int, guests: list[Guest], wanted: dict[ResourceId, int]) -> None:
    host = HostMemory(total_mib=16384, available_mib=available)
    assert targets(host, RESERVE, guests) == wanted


@given(
    st.integers(0, 4000),
    st.lists(
        st.tuples(
            st.integers(64, 2048),
            st.floats(0, 1),
            st.floats(0, 1),
            st.none() | st.integers(0, 2048),
        ),
        max_size=5,
    ),
)
def test_within_bounds_and_steady(
    available: int, drawn: list[tuple[int, float, float, int]]
) -> None:
    guests = []
    for number, (most, floor, target, spare) in enumerate(drawn):
        floor_mib = int(most * floor)
        target_mib = floor_mib + int((most - floor_mib) * target)
        guests.append(Guest(ResourceId(f"vm-{number}"), most, floor_mib, target_mib, spare))
    host = HostMemory(total_mib=16384, available_mib=available)
    found = targets(host, RESERVE, guests)
    for g in guests:
        new = found.get(g.id, g.target_mib)
        assert g.floor_mib <= new <= g.most_mib
        if new < g.target_mib:
            assert g.available_mib is not None
            assert g.target_mib - new <= g.available_mib
    moved = sum(g.target_mib - found.get(g.id, g.target_mib) for g in guests)
    after = HostMemory(total_mib=16384, available_mib=max(0, available + moved))
    if moved < 0:
        assert after.available_mib >= RESERVE - len(guests), "giving back makes it not short"
