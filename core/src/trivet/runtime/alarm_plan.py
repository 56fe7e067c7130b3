"""What becomes of one alarm: a rule table, first match wins. Pure.

Raised when its cause has held for the rule's `after_s`; cleared when the cause was away for the
rule's `clear_s`. One that flips does not flood: for each time that it was raised within the last
hour its cause must be away twice as long. A cleared alarm is kept for a while, for whoever asks
what happened, and is the memory by which flipping is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from trivet.contracts.alarm import (
    MORE,
    Alarm,
    AlarmRule,
    AlarmSpec,
    AlarmState,
    AlarmStatus,
    Delivery,
    Subject,
)
from trivet.contracts.alarm_sink import AlarmNotice
from trivet.contracts.elapsed import elapsed_s
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta, Phase

KEPT = timedelta(days=7)
FLAP_WINDOW = timedelta(hours=1)
LONGEST_HOLD_S = 1800.0
RAISINGS_KEPT = 10
BOUND = 100
"""Alarms of one rule that are raised at once; what is beyond is told as one alarm."""
DELIVERY_ATTEMPTS = 12
FIRST_DELIVERY_BACKOFF_S = 5.0
LAST_DELIVERY_BACKOFF_S = 3600.0
OLD_NEWS = timedelta(hours=1)

Rule = AlarmRule[Any]


@dataclass(frozen=True)
class Evidence:
    """What the rule says now: the cause (None: all is well) since when it says so, and whether
    what it speaks of is there at all. `rule` None: this version has no such rule."""

    rule: Rule | None
    subject: Subject
    cause: str | None
    since: datetime
    gone: bool = False
    crowded: bool = False


@dataclass(frozen=True)
class Write:
    """Store this alarm (`before` None: it is new)."""

    before: Alarm | None
    after: Alarm


@dataclass(frozen=True)
class Remove:
    """Forget this alarm."""

    alarm: Alarm


@dataclass(frozen=True)
class Wait:
    """Nothing now; look again after so many seconds (None: when something changes)."""

    seconds: float | None


def decide(
    alarm: Alarm | None, seen: Evidence, name: str, id_: ResourceId, now: datetime
) -> Write | Remove | Wait:
    """What to do about the alarm `name`; `id_` is the id of one that is made."""
    raised = alarm is not None and alarm.status.state is AlarmState.RAISED
    held_s = elapsed_s(seen.since, now)
    if seen.cause is not None and seen.rule is not None and not seen.gone:
        if alarm is not None and raised:
            return _kept_true(alarm, seen.rule, seen.cause)
        if held_s < seen.rule.after_s:
            return Wait(seen.rule.after_s - held_s)
        if seen.crowded:
            return Wait(None)
        return Write(alarm, _raised(alarm, seen.rule, seen.subject, seen.cause, name, id_, now))
    if alarm is None:
        return Wait(None)
    if raised:
        wait_s = 0.0 if seen.gone or seen.rule is None else hold_s(alarm, seen.rule, now) - held_s
        return Wait(wait_s) if wait_s > 0 else Write(alarm, _cleared(alarm, now))
    left = (alarm.status.cleared_at or now) + KEPT - now
    return Wait(left.total_seconds()) if left > timedelta(0) else Remove(alarm)


def hold_s(alarm: Alarm, rule: Rule, now: datetime) -> float:
    """How long the cause must be away before the alarm is cleared."""
    recent = sum(at > now - FLAP_WINDOW for at in alarm.status.raised)
    return float(min(rule.clear_s * 2.0 ** max(0, recent - 1), LONGEST_HOLD_S))


def _kept_true(alarm: Alarm, rule: Rule, cause: str) -> Write | Wait:
    told = {"cause": cause, "title": rule.title, "remedy": rule.remedy, "severity": rule.severity}
    after = alarm.with_status(**told)
    return Wait(None) if after == alarm else Write(alarm, _labelled(after))


def _raised(
    alarm: Alarm | None,
    rule: Rule,
    subject: Subject,
    cause: str,
    name: str,
    id_: ResourceId,
    now: datetime,
) -> Alarm:
    before = alarm.status if alarm else None
    status = AlarmStatus(
        phase=Phase.READY,
        rule=rule.name,
        severity=rule.severity,
        subject=subject,
        title=rule.title,
        cause=cause,
        remedy=rule.remedy,
        raised_at=now,
        change=before.change + 1 if before else 1,
        raised=((*before.raised, now) if before else (now,))[-RAISINGS_KEPT:],
        deliveries=before.deliveries if before else {},
    )
    if alarm is None:
        alarm = Alarm(meta=Meta(id=id_, name=name, created_at=now), spec=AlarmSpec(), status=status)
    alarm = alarm.model_copy(update={"status": status}).with_spec(AlarmSpec())
    return _labelled(alarm.with_status(observed_generation=alarm.meta.generation))


def _cleared(alarm: Alarm, now: datetime) -> Alarm:
    return _labelled(
        alarm.with_status(state=AlarmState.CLEARED, cleared_at=now, change=alarm.status.change + 1)
    )


def _labelled(alarm: Alarm) -> Alarm:
    """With labels, by which lists are narrowed (`trivet alarm list -l state=raised`)."""
    status = alarm.status
    labels = {"rule": status.rule, "severity": status.severity.value, "state": status.state.value}
    return alarm.with_meta(labels=labels)


def overflow(rule: Rule, subjects: tuple[str, ...]) -> str | None:
    """The cause of the alarm that stands for those beyond the bound; None: there are none."""
    if not subjects:
        return None
    some = ", ".join(subjects[:5]) + (", ..." if len(subjects) > 5 else "")
    return f"{len(subjects)} more of {rule.kind.plural}: {some}"


def overflow_name(rule: Rule) -> str:
    """The name of that alarm."""
    return f"{rule.name}-{MORE}"


# --- telling sinks ---------------------------------------------------------------------------


def due(alarm: Alarm, sink: str, now: datetime) -> float | None:
    """After how many seconds the sink is to be told (0: now); None: it knows, or nobody tries
    any more, or it is old news to a sink that never heard of this alarm."""
    told = alarm.status.deliveries.get(sink)
    if told is None:
        cleared_at = alarm.status.cleared_at
        return None if cleared_at and cleared_at < now - OLD_NEWS else 0.0
    if max(told.change, told.gave_up) >= alarm.status.change:
        return None
    if told.not_before is None:
        return 0.0
    wait_s = max(0.0, (told.not_before - now).total_seconds())
    return wait_s if wait_s <= LAST_DELIVERY_BACKOFF_S else 0.0  # the clock was set back


def delivered(alarm: Alarm, sink: str, change: int) -> Alarm:
    """The alarm, after the sink took that change."""
    return _with_delivery(alarm, sink, Delivery(change=change))


def not_delivered(
    alarm: Alarm, sink: str, change: int, problem: str, now: datetime, *, final: bool
) -> Alarm:
    """The alarm, after an attempt to tell that change failed; `final`: it is refused."""
    before = alarm.status.deliveries.get(sink, Delivery())
    failures = before.failures + 1
    wait_s = min(FIRST_DELIVERY_BACKOFF_S * 2.0 ** (failures - 1), LAST_DELIVERY_BACKOFF_S)
    if final or failures >= DELIVERY_ATTEMPTS:
        after = Delivery(change=before.change, gave_up=change, problem=problem[:300])
    else:
        after = Delivery(
            change=before.change,
            failures=failures,
            not_before=now + timedelta(seconds=wait_s),
            gave_up=before.gave_up,
            problem=problem[:300],
        )
    return _with_delivery(alarm, sink, after)


def notice(alarm: Alarm, service: str, node: str) -> AlarmNotice:
    """What a sink is told of the alarm."""
    status = alarm.status
    return AlarmNotice(
        key=f"{alarm.meta.id}/{status.change}",
        service=service,
        node=node,
        name=alarm.meta.name,
        rule=status.rule,
        severity=status.severity,
        state=status.state,
        subject=status.subject,
        title=status.title,
        cause=status.cause,
        remedy=status.remedy,
        raised_at=status.raised_at,
        cleared_at=status.cleared_at,
    )


def _with_delivery(alarm: Alarm, sink: str, delivery: Delivery) -> Alarm:
    return alarm.with_status(deliveries={**alarm.status.deliveries, sink: delivery})
