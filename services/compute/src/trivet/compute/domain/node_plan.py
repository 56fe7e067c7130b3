"""What a node's agent does next for one VM: an ordered rule table, first match wins.

Desired (the VM's spec) against observed (its domain, and what its disks and ports are like);
the answer is a few actions and when to look again. The agent applies them and asks anew until
there is nothing left to do, so that a plan need only see one step far, and an agent that was
cut anywhere goes on from what it finds.

Three facts carry the safety. A domain counts as the VM only under the VM's epoch, which grows
before every start. A hypervisor that does not answer means `unknown`, never `stopped`. And a
guest that went off without `stop_by` being set did so by itself: then its owner asked.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from trivet.compute.domain.actions import (
    Action,
    AdoptEpoch,
    AskShutdown,
    Boot,
    CutPower,
    Detach,
    ForgetStop,
    LetGo,
    Live,
    MarkUnknown,
    Prepare,
    Record,
    RecordPowerOff,
    Release,
    Resume,
    SetStopBy,
    Suspend,
    Undefine,
    Wait,
)
from trivet.compute.domain.live_rules import LIVE_RULES
from trivet.compute.domain.situation import ASK_BOOTING_S, ASK_EVERY_S, Plan, Rule, Seen, Situation
from trivet.compute.domain.vm_status import resume_delay_s, shows
from trivet.contracts.compute.vm import Power, Vm, WantedPower

DEFAULT_GRACE_S = 60
WAIT_FOR_PARTS_S = 1.0


def _record(s: Situation) -> tuple[Action, ...]:
    domain = s.seen.domain
    live = None
    if domain is not None and s.active:
        sizes = (domain.vcpus, domain.memory_mib)
        live = Live(domain.disks, domain.nics, *sizes, s.seen.can_plug, s.tuned)
    return (Record(s.power, s.reason, bool(domain and domain.ready), live),)


def _is_recorded(s: Situation) -> bool:
    return all(shows(s.vm, action) for action in _record(s) if isinstance(action, Record))


def _wants(*powers: WantedPower) -> Callable[[Situation], bool]:
    return lambda s: s.wanted in powers


def _ask_every_s(s: Situation) -> float:
    return ASK_EVERY_S if s.seen.domain and s.seen.domain.ready else ASK_BOOTING_S


def _ask_again_s(s: Situation) -> float:
    return min(s.seconds_until(s.seen.asked_at, _ask_every_s(s)), s.stop_left_s)


def _wait_for_off_s(s: Situation) -> float:
    """A guest that does not run is not asked: only its deadline is waited for."""
    if s.power is Power.RUNNING:
        return _ask_again_s(s)
    return s.stop_left_s


def _lacks(s: Situation) -> bool:
    return s.seen.prepared is not None and bool(s.seen.prepared.missing)


def _wait_for_parts(s: Situation) -> tuple[Action, ...]:
    found = s.seen.prepared
    assert found is not None, "only after it was prepared"
    return (Wait("; ".join(found.missing), "PoolFull" if found.pool_full else "Waits"),)


_RUN, _OFF, _PAUSE = WantedPower.RUNNING, WantedPower.STOPPED, WantedPower.PAUSED

RULES: tuple[Rule, ...] = (
    Rule(
        "unreachable",
        "the hypervisor does not answer: what runs is unknown, and unknown never reads as off",
        lambda s: s.seen.unreachable is not None,
        lambda s: (MarkUnknown(s.seen.unreachable or ""),),
        lambda s: WAIT_FOR_PARTS_S * 2,
    ),
    Rule(
        "delete-cut",
        "a VM that is deleted needs no time to end: its disks go too",
        lambda s: s.vm.meta.deleting_at is not None and s.active,
        lambda s: (CutPower(),),
    ),
    Rule(
        "delete-undefine",
        "its domain is off and must be forgotten before its disks go",
        lambda s: s.vm.meta.deleting_at is not None and s.seen.domain is not None,
        lambda s: (Undefine(),),
    ),
    Rule(
        "delete-let-go",
        "nothing of it is left on this node but its disks' attachments",
        lambda s: s.vm.meta.deleting_at is not None,
        lambda s: (Detach(), LetGo()),
    ),
    Rule(
        "newer-epoch",
        "the host knows of a later start than the store, which was put back to an older state",
        lambda s: s.epoch_is(lambda has, due: has > due),
        lambda s: (AdoptEpoch(s.seen.domain.epoch if s.seen.domain else 0, s.active),),
    ),
    Rule(
        "older-epoch",
        "what runs under an older epoch is not this VM",
        lambda s: s.active and s.epoch_is(lambda has, due: has < due),
        lambda s: (CutPower(),),
    ),
    Rule(
        "guest-off",
        "the guest powered itself off: its owner asked, from inside",
        lambda s: s.went_off_by_itself and not s.seen.draining,
        lambda s: (RecordPowerOff("GuestPoweredOff", "the guest powered itself off"),),
    ),
    Rule(
        "pause-lost",
        "a pause keeps the memory of a run, and that run is over: there is nothing to keep",
        lambda s: s.wanted is _PAUSE and not s.active and s.vm.status.epoch > 0,
        lambda s: (RecordPowerOff("PauseLost", f"it was paused and is gone ({s.reason})"),),
    ),
    Rule(
        "stop-set-deadline",
        "a stop has a deadline, and it is on record before the guest is asked",
        lambda s: s.wanted is _OFF and s.active and s.vm.status.stop_by is None,
        lambda s: (SetStopBy(DEFAULT_GRACE_S),),
    ),
    Rule(
        "stop-cut",
        "the guest had its time",
        lambda s: s.wanted is _OFF and s.active and s.overdue,
        lambda s: (CutPower(),),
    ),
    Rule(
        "stop-thaw",
        "a paused guest can't hear that it is asked",
        lambda s: s.wanted is _OFF and s.power is Power.PAUSED and not s.disk_failed,
        lambda s: (Resume(),),
    ),
    Rule(
        "stop-ask",
        "the guest is asked, and asked again: one that still boots does not hear it",
        lambda s: s.wanted is _OFF and s.power is Power.RUNNING and _ask_again_s(s) <= 0,
        lambda s: (AskShutdown(),),
        _ask_every_s,
    ),
    Rule(
        "stop-wait",
        "the guest was asked and has time left",
        lambda s: s.wanted is _OFF and s.active,
        lambda s: (Wait("waits for the guest to go off"),),
        _wait_for_off_s,
    ),
    Rule(
        "stop-detach",
        "it is off: its disks are let go",
        lambda s: s.wanted is _OFF and not s.seen.detached,
        lambda s: (Detach(),),
    ),
    Rule(
        "stop-record",
        "it is off",
        lambda s: (
            s.wanted is _OFF
            and (not _is_recorded(s) or s.run_open or s.vm.status.stop_by is not None)
        ),
        _record,
    ),
    Rule(
        "release",
        "it is off, and parts of it are asked for no more: they are let go of for good",
        lambda s: not s.active and not s.run_open and bool(s.to_release),
        lambda s: (Release(s.to_release),),
    ),
    Rule("stopped", "it is off, as wanted", _wants(_OFF)),
    Rule(
        "record-end",
        "its run has ended, and that is told before it starts again",
        lambda s: not s.active and (s.run_open or s.vm.status.power is not Power.STOPPED),
        _record,
    ),
    Rule(
        "restart-wait",
        "it crashed again soon after its start: the next one waits",
        lambda s: not s.active and s.restart_left_s > 0,
        lambda s: (Wait("waits, for it crashed soon after its start"),),
        lambda s: s.restart_left_s,
    ),
    Rule(
        "prepare",
        "before a start, disks are attached and ports looked at",
        lambda s: not s.active and s.seen.prepared is None,
        lambda s: (Prepare(),),
    ),
    Rule(
        "parts-missing",
        "it can't start before its disks, ports and memory are there",
        lambda s: not s.active and _lacks(s),
        _wait_for_parts,
        lambda s: WAIT_FOR_PARTS_S,
    ),
    Rule(
        "boot",
        "all is there: it starts, under a new epoch",
        lambda s: not s.active,
        lambda s: (Boot(s.vm.status.epoch + 1),),
    ),
    Rule(
        "stop-overtaken",
        "a start overtook the stop and the guest did not go off: the stop is forgotten",
        lambda s: s.overdue,
        lambda s: (ForgetStop(),),
    ),
    Rule(
        "pause",
        "it runs, and is to be paused",
        lambda s: s.wanted is _PAUSE and s.power is Power.RUNNING,
        lambda s: (Suspend(),),
    ),
    Rule(
        "disk-error-record",
        "a disk failed and the guest was stopped before it could see it: that is told first",
        lambda s: s.wanted is _RUN and s.disk_failed and not _is_recorded(s),
        _record,
    ),
    Rule(
        "disk-error-wait",
        "it was let run on a moment ago, and its disk failed again",
        lambda s: (
            s.wanted is _RUN
            and s.disk_failed
            and s.seconds_until(s.seen.resumed_at, resume_delay_s(s.seen.resumes)) > 0
        ),
        lambda s: (Wait("a disk fails: it is let run on when the disk answers again"),),
        lambda s: s.seconds_until(s.seen.resumed_at, resume_delay_s(s.seen.resumes)),
    ),
    Rule(
        "disk-error-prepare",
        "its disks are attached anew where they broke, and it is looked whether there is space",
        lambda s: s.wanted is _RUN and s.disk_failed and s.seen.prepared is None,
        lambda s: (Prepare(),),
    ),
    Rule(
        "disk-error-lacks",
        "it would only be stopped again: its disks are not there, or find no space",
        lambda s: s.wanted is _RUN and s.disk_failed and _lacks(s),
        _wait_for_parts,
        lambda s: WAIT_FOR_PARTS_S * 2,
    ),
    Rule(
        "disk-error-resume",
        "its disks answer: what failed is done again, and it runs on",
        lambda s: s.wanted is _RUN and s.disk_failed,
        lambda s: (Resume(),),
    ),
    Rule(
        "resume",
        "it is paused, and is to run",
        lambda s: s.wanted is _RUN and s.power is Power.PAUSED,
        lambda s: (Resume(),),
    ),
    Rule(
        "record",
        "what is seen is not yet on record",
        lambda s: not _is_recorded(s),
        _record,
    ),
    *LIVE_RULES,
    Rule("settled", "it is as wanted", lambda s: True),
)


def plan(vm: Vm, seen: Seen, now: datetime) -> Plan:
    """The next step for a VM that is assigned to this node."""
    situation = Situation(vm, seen, now)
    rule = next(r for r in RULES if r.when(situation))
    look_s = rule.look_s(situation)
    return Plan(rule.name, rule.why, rule.then(situation), look_s)
