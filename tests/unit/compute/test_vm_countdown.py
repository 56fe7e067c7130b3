"""Counting down to a time on record, while somebody sets the clock."""

from datetime import UTC, datetime, timedelta

from trivet.compute.node.records import Countdown

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Hands:
    """A clock whose wall time and monotonic time a test moves, each for itself."""

    def __init__(self) -> None:
        self.wall, self.ticks = NOW, 100.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.ticks

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")


def test_it_takes_as_long_as_it_was_to_take_whatever_is_set_meanwhile() -> None:
    clock, count, at = Hands(), Countdown(), NOW + timedelta(seconds=30)
    assert count.left_s(at, clock, 3600) == 30
    for step in (HOUR, -2 * HOUR):
        clock.wall += step
        clock.ticks += 10
        assert count.left_s(at, clock, 3600) == 130 - clock.ticks
    clock.ticks += 10
    assert count.left_s(at, clock, 3600) == 0


def test_what_is_first_seen_after_the_clock_was_set_back_does_not_wait_for_it() -> None:
    clock, count, at = Hands(), Countdown(), NOW + timedelta(seconds=4)
    clock.wall -= HOUR
    assert count.left_s(at, clock, 4) == 4
    clock.ticks += 4
    assert count.left_s(at, clock, 4) == 0


def test_another_time_is_counted_anew_and_none_is_none() -> None:
    clock, count = Hands(), Countdown()
    assert count.left_s(None, clock, 3600) is None
    assert count.left_s(NOW + HOUR, clock, 3600) == 3600
    assert count.left_s(NOW, clock, 3600) == 0
    assert count.left_s(NOW - HOUR, clock, 3600) == 0
