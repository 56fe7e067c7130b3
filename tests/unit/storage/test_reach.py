"""How a host answers, told from its beats."""

from trivet.storage.domain.reach import (
    SETTLE_FIRST_S,
    SETTLE_LAST_S,
    STEADY_S,
    Beats,
    beat,
    first_beat,
    lost,
    reach,
)

SILENT_S = 2.5


def answering(beats: Beats, since: float, until: float) -> Beats:
    """After beats twice a second, all answered."""
    at = since
    while at <= until:
        beats = beat(beats, True, at, SILENT_S)
        at += 0.5
    return beats


def test_a_host_is_taken_to_answer_until_it_does_not():
    beats = first_beat(0.0)
    assert reach(beats, 1.0).settled
    beats = beat(beats, False, 2.0, SILENT_S)
    assert reach(beats, 2.0).settled
    beats = beat(beats, False, 2.5, SILENT_S)
    assert not reach(beats, 2.5).settled
    assert reach(beats, 2.5).silent_s == 2.5


def test_one_that_was_lost_is_taken_back_after_it_has_answered_for_a_while():
    beats = lost(first_beat(0.0), 10.0)
    assert not reach(beats, 100.0).settled  # it has not answered since
    beats = beat(beats, True, 11.0, SILENT_S)
    assert not reach(beats, 11.0).settled
    assert reach(beats, 11.0 + SETTLE_FIRST_S).settled


def test_a_loss_that_is_told_several_times_is_one():
    """A write failed, a read failed, and then its host was silent, too."""
    beats = lost(lost(first_beat(0.0), 10.0), 10.1)
    beats = beat(beats, False, 12.5, SILENT_S)
    beats = lost(beats, 12.6)
    assert beats.settle_s == SETTLE_FIRST_S


def test_one_that_comes_and_goes_is_waited_for_longer_and_longer():
    beats, at, waits = first_beat(0.0), 10.0, list[float]()
    for _ in range(20):
        beats = lost(beats, at)
        waits.append(beats.settle_s)
        back = at + beats.settle_s + 1.0
        beats = answering(beats, at, back)
        at = back
    assert waits == sorted(waits)
    assert waits[0] == SETTLE_FIRST_S
    assert waits[3] > 4 * SETTLE_FIRST_S
    assert waits[-1] >= STEADY_S / 2
    assert waits[-1] <= SETTLE_LAST_S


def test_losses_that_are_far_apart_are_no_reason_to_wait_longer():
    beats, at = first_beat(0.0), 10.0
    for _ in range(20):
        beats = answering(lost(beats, at), at, at + STEADY_S + 1)
        at += STEADY_S + 1
    assert beats.settle_s == SETTLE_FIRST_S
