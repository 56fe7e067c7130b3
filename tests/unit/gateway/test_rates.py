"""Token buckets: what they let pass over any time is bounded, and nobody waits too long."""

from hypothesis import given
from hypothesis import strategies as st

from trivet.gateway import rates
from trivet.gateway.rates import Rates


def test_a_burst_then_one_each_tenth_of_a_second() -> None:
    bucket = Rates(per_s=10, burst=3)
    assert [bucket.take("a", 0.0) for _ in range(3)] == [0, 0, 0]
    assert bucket.take("a", 0.0) == 0.1
    assert bucket.take("b", 0.0) == 0
    assert bucket.take("a", 0.1) == 0
    assert bucket.take("a", 0.1) > 0


def test_a_look_takes_nothing() -> None:
    bucket = Rates(per_s=1, burst=1)
    assert [bucket.wait_s("a", 0.0) for _ in range(5)] == [0] * 5
    bucket.take("a", 0.0)
    assert bucket.wait_s("a", 0.0) == 1


@given(st.floats(0.1, 100), st.integers(1, 50), st.lists(st.floats(0, 1), min_size=1, max_size=200))
def test_never_more_than_the_burst_and_the_rate(
    per_s: float, burst: int, pauses: list[float]
) -> None:
    bucket, now, passed = Rates(per_s, burst), 0.0, 0
    for pause in pauses:
        now += pause
        wait_s = bucket.take("a", now)
        passed += wait_s == 0
        assert 0 <= wait_s <= 1 / per_s + 1e-9
    assert passed <= burst + now * per_s + 1e-6


def test_the_number_of_buckets_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(rates, "KEYS_BOUND", 10)
    bucket = Rates(per_s=1, burst=2)
    for n in range(100):
        bucket.take(n, 0.0)
    assert len(bucket._levels) == 10
