"""How late a message is: by what its sender's fastest one took, whatever the clocks say."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.runtime.lateness import DRIFT, SENDERS_MAX, Lateness, Stamp

NEAR = pytest.approx(0.0, abs=0.002)
DAY_S = 86_400.0


@dataclass
class World:
    """A time, and two machines that began to count it at other times."""

    now: float = 0.0
    began: float = 0.0
    speed: float = 1.0

    def sender(self) -> float:
        return 5_000.0 + self.now * self.speed

    def receiver(self) -> float:
        return self.began + self.now


@given(began=st.floats(0, 1e6), waits=st.lists(st.floats(0, 60), max_size=8))
def test_what_waited_is_late_by_what_it_waited(began: float, waits: list[float]) -> None:
    world = World(began=began)
    stamp, lateness = Stamp(world.sender), Lateness(world.receiver)
    assert lateness.of(stamp.now()) == 0.0
    for wait_s in waits:
        sent = stamp.now()
        world.now += wait_s
        assert lateness.of(sent) == pytest.approx(wait_s, abs=0.002 + DRIFT * 500)


def test_clocks_that_part_slowly_make_nothing_late() -> None:
    world = World(speed=1 - DRIFT / 2)
    stamp, lateness = Stamp(world.sender), Lateness(world.receiver)
    for _ in range(50):
        assert lateness.of(stamp.now()) == NEAR
        world.now += DAY_S


def test_who_has_another_name_is_taken_to_be_on_time() -> None:
    world = World()
    stamp, lateness = Stamp(world.sender), Lateness(world.receiver)
    lateness.of(stamp.now())
    world.began += 30  # the sender's clock was stopped for so long
    assert lateness.of(stamp.now()) > 29
    stamp.renew()
    assert lateness.of(stamp.now()) == 0.0


def test_no_stamp_and_no_sense_are_on_time() -> None:
    lateness = Lateness()
    for stamp in ("", "x.1", "0011223344.5", "00112233.", "00112233.-1", "00112233.1\n"):
        assert lateness.of(stamp) == 0.0


def test_only_so_many_senders_are_kept() -> None:
    world = World()
    lateness = Lateness(world.receiver)
    first = Stamp(world.sender)
    sent = first.now()
    lateness.of(sent)
    for _ in range(SENDERS_MAX):
        lateness.of(Stamp(world.sender).now())
    world.now += 9
    assert lateness.of(sent) == 0.0, "it was forgotten"
