"""How a host answers, told from its beats: silent since when, and whether it may be taken back;
and which replicas are not waited for though their hosts answer.

A host is silent from its last answer on. One that was lost is taken back after it has answered for
a while without a break. Each further loss makes that while longer, the more so the sooner it
comes after the last: one that comes and goes does not make the guests wait again and again, and
one that was well for as long as `STEADY_S` waits no longer than before. A host that is lost while
it is not back has been lost once.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from trivet.contracts.storage.volume import ReplicaState, Volume
from trivet.storage.domain.graph_plan import Reach
from trivet.storage.domain.replication import trusted

SETTLE_FIRST_S = 1.0
SETTLE_LAST_S = 60.0
STEADY_S = 30.0
"""Losses that far apart leave the while as it is; closer ones make it up to twice as long."""


@dataclass(frozen=True)
class Beats:
    """What is known of a host; times are monotonic seconds. `answers_since`: None while it does
    not answer; `lost_at`: when it was last lost, `settle_s`: how long it has to answer since."""

    answered_at: float
    answers_since: float | None
    lost_at: float | None = None
    settle_s: float = 0.0


def first_beat(now: float) -> Beats:
    """A host that is looked at from now on: it is taken to answer until it does not."""
    return Beats(answered_at=now, answers_since=now)


def beat(beats: Beats, answered: bool, now: float, silent_s: float) -> Beats:
    """What is known after one more look; who is silent for `silent_s` is lost."""
    if answered:
        since = now if beats.answers_since is None else beats.answers_since
        return replace(beats, answered_at=now, answers_since=since)
    if beats.answers_since is None or now - beats.answered_at < silent_s:
        return beats
    return lost(beats, now)


def lost(beats: Beats, now: float) -> Beats:
    """What is known after the host was lost: it was silent, or what it serves broke."""
    settle_s = beats.settle_s
    if beats.lost_at is None:
        settle_s = SETTLE_FIRST_S
    elif reach(beats, now).settled:
        longer = settle_s * 2.0 ** (1.0 - (now - beats.lost_at) / STEADY_S)
        settle_s = min(max(longer, SETTLE_FIRST_S), SETTLE_LAST_S)
    return replace(beats, answers_since=None, lost_at=now, settle_s=settle_s)


def reach(beats: Beats, now: float) -> Reach:
    """How it answers now."""
    since = beats.answers_since
    settled = since is not None and now - since >= beats.settle_s
    return Reach(silent_s=now - beats.answered_at, settled=settled)


def not_waited_for(
    volume: Volume, unwell: Collection[str], silent: Collection[str]
) -> tuple[str, ...]:
    """The nodes whose replicas are broken off though their servers are there: they refuse writes,
    or their disk does not answer. Nobody is where no other would be left to read: then
    everything waits, for space or for the disk."""
    if not any(r.node not in unwell and r.node not in silent for r in trusted(volume)):
        return ()
    members = (ReplicaState.IN_SYNC, ReplicaState.REBUILDING)
    replicas = volume.status.replicas
    return tuple(r.node for r in replicas if r.node in unwell and r.state in members)
