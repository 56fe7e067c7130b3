"""When the supervisor starts a process again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.host.restart import FIRST_DELAY_S, LONGEST_DELAY_S, RAN_WELL_S, RestartState, delay_s


def test_a_new_process_is_due_at_once_and_a_running_one_is_not():
    state = RestartState()
    assert state.due(0.0)
    assert not state.started(0.0).due(100.0)


@pytest.mark.parametrize(
    ("failures", "delay"), [(1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (6, 15.0), (100_000, 15.0)]
)
def test_each_early_end_waits_longer_up_to_a_bound(failures, delay):
    assert delay_s(failures) == delay


def test_one_that_ran_well_starts_anew_soon():
    state = RestartState(failures=7).started(0.0).ended(RAN_WELL_S)
    assert state.failures == 1
    assert not state.due(RAN_WELL_S + FIRST_DELAY_S / 2)
    assert state.due(RAN_WELL_S + FIRST_DELAY_S)


@given(st.lists(st.floats(min_value=0, max_value=1000), max_size=30))
def test_it_is_never_given_up(runs):
    state, now = RestartState(), 0.0
    for ran_s in runs:
        state = state.started(now)
        now += ran_s
        state = state.ended(now)
        assert not state.due(now)
        now += LONGEST_DELAY_S
        assert state.due(now)
