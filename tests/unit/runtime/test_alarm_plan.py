"""What becomes of an alarm, as tables and properties."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.contracts.alarm import AlarmRule, AlarmState, Severity, Subject
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.pool import POOL
from trivet.runtime import alarm_plan as plan

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RULE = AlarmRule(
    "pool-full",
    POOL,
    Severity.CRITICAL,
    "A pool is full",
    "Make room",
    lambda pool, now: None,
    after_s=10,
    clear_s=30,
)
SUBJECT = Subject(kind="Pool", id=ResourceId("pool-1"), name="p")


def s(seconds):
    return NOW + timedelta(seconds=seconds)


def evidence(cause, since, **more):
    return plan.Evidence(RULE, SUBJECT, cause, since, **more)


def decide(alarm, seen, now):
    return plan.decide(alarm, seen, "pool-full-x", ResourceId("alarm-1"), now)


def raised(at=NOW, alarm=None):
    """An alarm that was raised then."""
    made = decide(alarm, evidence("full", at - timedelta(seconds=10)), at)
    assert isinstance(made, plan.Write)
    return made.after


def cleared(alarm, at):
    made = decide(alarm, evidence(None, at - timedelta(hours=1)), at)
    assert isinstance(made, plan.Write)
    return made.after


def test_a_cause_must_hold_for_a_while():
    assert decide(None, evidence("full", NOW), s(4)) == plan.Wait(6)
    after = decide(None, evidence("full", NOW), s(10)).after
    assert (after.status.state, after.status.cause, after.status.change) == ("raised", "full", 1)
    assert after.status.raised_at == s(10)
    assert dict(after.meta.labels) == {
        "rule": "pool-full",
        "severity": "critical",
        "state": "raised",
    }


def test_a_clock_that_was_set_back_delays_no_alarm():
    assert isinstance(decide(None, evidence("full", NOW), s(-3600)), plan.Write)
    assert isinstance(decide(raised(), evidence(None, s(5)), s(-3600)), plan.Write)


def test_nothing_is_said_where_all_is_well():
    assert decide(None, evidence(None, NOW), s(100)) == plan.Wait(None)


def test_a_raised_one_says_what_the_cause_is_now():
    told = decide(raised(), evidence("fuller", NOW), s(1))
    assert told.after.status.cause == "fuller"
    assert told.after.status.change == 1, "that is no other alarm"
    assert decide(raised(), evidence("full", NOW), s(1)) == plan.Wait(None)


def test_it_clears_when_the_cause_was_away_for_a_while():
    alarm = raised()
    assert decide(alarm, evidence(None, s(5)), s(15)) == plan.Wait(20)
    after = decide(alarm, evidence(None, s(5)), s(35)).after
    assert (after.status.state, after.status.cleared_at) == ("cleared", s(35))
    assert after.status.change == 2
    assert after.meta.labels["state"] == "cleared"


def test_it_clears_at_once_when_what_it_spoke_of_is_gone():
    assert isinstance(decide(raised(), evidence(None, s(5), gone=True), s(5)), plan.Write)
    unknown_rule = plan.Evidence(None, SUBJECT, None, s(5))
    assert isinstance(decide(raised(), unknown_rule, s(5)), plan.Write)


def test_a_new_raising_forgets_who_knew_of_the_last_one():
    spec = raised().spec.model_copy(update={"acknowledged_by": "ops"})
    known = raised().with_spec(spec)
    again = raised(s(1000), cleared(known, s(500)))
    assert again.spec.acknowledged_by is None
    assert again.status.change == 3
    assert again.status.cleared_at is None
    assert again.settled()


def test_one_that_flips_is_held_longer_each_time():
    alarm, at, holds = None, NOW, []
    for _ in range(8):
        alarm = raised(at, alarm)
        holds.append(plan.hold_s(alarm, RULE, at))
        alarm = cleared(alarm, at + timedelta(seconds=60))
        at += timedelta(seconds=120)
    assert holds == [30, 60, 120, 240, 480, 960, 1800, 1800]
    assert plan.hold_s(raised(s(90000), alarm), RULE, s(90000)) == 30


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 300)), max_size=200))
def test_a_flipping_cause_never_floods(flips):
    """Whatever flips how fast: at most a bounded number of changes an hour."""
    alarm, at, holds, since = None, NOW, False, NOW
    changes = []
    for cause, seconds in flips:
        if cause != holds:
            holds, since = cause, at
        at += timedelta(seconds=seconds)
        told = decide(alarm, evidence("full" if holds else None, since), at)
        if isinstance(told, plan.Write):
            changes += (
                [at] if alarm is None or told.after.status.change != alarm.status.change else []
            )
            alarm = told.after
    for change in changes:
        assert sum(change <= c < change + timedelta(hours=1) for c in changes) <= 16


def test_a_cleared_one_is_kept_for_a_week():
    alarm = cleared(raised(), s(100))
    assert decide(alarm, evidence(None, s(100)), s(200)) == plan.Wait(7 * 86400 - 100)
    late = s(100) + timedelta(days=7)
    assert decide(alarm, evidence(None, s(100)), late) == plan.Remove(alarm)


def test_beyond_the_bound_it_joins_the_crowd():
    assert decide(None, evidence("full", NOW, crowded=True), s(60)) == plan.Wait(None)
    assert plan.overflow(RULE, ()) is None
    assert plan.overflow(RULE, tuple("abcdefg")) == "7 more of pools: a, b, c, d, e, ..."


class TestDelivery:
    def test_a_change_is_told_once(self):
        alarm = raised()
        assert plan.due(alarm, "webhook", NOW) == 0
        told = plan.delivered(alarm, "webhook", 1)
        assert plan.due(told, "webhook", NOW) is None
        assert plan.due(told, "syslog", NOW) == 0
        assert plan.due(cleared(told, s(100)), "webhook", s(100)) == 0

    def test_a_failure_is_tried_again_later_and_later_and_not_for_ever(self):
        alarm, waits = raised(), []
        while (wait := plan.due(alarm, "webhook", NOW)) is not None and len(waits) < 50:
            waits.append(wait)
            alarm = plan.not_delivered(alarm, "webhook", 1, "down", NOW, final=False)
        assert waits[:4] == [0, 5, 10, 20]
        assert len(waits) == plan.DELIVERY_ATTEMPTS
        assert alarm.status.deliveries["webhook"].gave_up == 1
        assert plan.due(cleared(alarm, s(100)), "webhook", s(100)) == 0, "the next change is told"

    def test_what_is_refused_is_not_tried_again(self):
        alarm = plan.not_delivered(raised(), "webhook", 1, "no", NOW, final=True)
        assert plan.due(alarm, "webhook", s(10**6)) is None

    def test_a_change_while_it_failed_is_told_as_it_is_then(self):
        alarm = plan.not_delivered(raised(), "webhook", 1, "down", NOW, final=False)
        notice = plan.notice(cleared(alarm, s(100)), "storage", "n1")
        assert (notice.key, notice.state) == ("alarm-1/2", AlarmState.CLEARED)

    def test_a_new_sink_is_not_told_of_what_is_long_over(self):
        alarm = cleared(raised(), s(100))
        assert plan.due(alarm, "webhook", s(200)) == 0
        assert plan.due(alarm, "webhook", s(100) + plan.OLD_NEWS + timedelta(seconds=1)) is None


@pytest.mark.parametrize("field", ["cause", "remedy", "title"])
def test_a_notice_says_what_a_person_needs(field):
    assert getattr(plan.notice(raised(), "storage", "n1"), field)
