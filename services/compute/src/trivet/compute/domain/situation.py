"""What a node's agent knows of one VM when it plans, and the questions that rules ask of it.

`Seen` comes from the machine and from what the agent remembers, the VM from the store. A
`Situation` is both at one time; `Rule` is a row of the tables in `node_plan` and `live_rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from trivet.compute.domain.actions import Action, Preparation, Wait
from trivet.compute.domain.hardware import disks_leaving, nics_leaving
from trivet.contracts.compute.hypervisor import DomainState, DomainTuning
from trivet.contracts.compute.vm import Power, Vm, WantedPower
from trivet.contracts.elapsed import elapsed_s

ASK_EVERY_S = 10.0
"""How often a guest is asked again for what it has not done yet."""

ASK_BOOTING_S = 2.0
"""The same for one that still boots, and so did not hear it."""


@dataclass(frozen=True)
class Seen:
    """What the agent sees of one VM.

    `unreachable` says why the hypervisor did not answer; then `domain` says nothing. Else
    `domain` None means that there positively is none. `detached`: known to hold no disk.
    `prepared` is what a `Prepare` of this very pass found; `asked_at` when the guest was last
    asked to go off, `resumed_at` when one with a disk error was last let run on, `resumes` how
    often in a row, `asked_off` when the guest was last asked to let go of a device. `can_plug`:
    this hypervisor changes the hardware of running guests; `tuning` is how the guest should get
    its processors, where this hypervisor can change that too (else None). `stop_left_s` and
    `restart_left_s` are the seconds left until `stop_by` and `restart_at`, by a clock that nobody
    sets (None: not known; then the times themselves count).
    """

    domain: DomainState | None = None
    unreachable: str | None = None
    draining: bool = False
    detached: bool = False
    prepared: Preparation | None = None
    asked_at: datetime | None = None
    resumed_at: datetime | None = None
    resumes: int = 0
    asked_off: Mapping[str, datetime] = field(default_factory=dict)
    can_plug: bool = False
    tuning: DomainTuning | None = None
    stop_left_s: float | None = None
    restart_left_s: float | None = None


@dataclass(frozen=True)
class Plan:
    """The actions of one step, by which rule and why; `look_s`: when to look again if nothing
    wakes the agent before (None: at the next full look)."""

    rule: str
    why: str
    actions: tuple[Action, ...] = ()
    look_s: float | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing more to do now."""
        return all(isinstance(a, Wait) for a in self.actions)


@dataclass(frozen=True)
class Situation:
    """A VM with what is seen of it, and the questions that rules ask."""

    vm: Vm
    seen: Seen
    now: datetime

    @property
    def wanted(self) -> WantedPower:
        """The power wanted now: a node that drains wants all off, whatever the specs say."""
        return WantedPower.STOPPED if self.seen.draining else self.vm.spec.power

    @property
    def power(self) -> Power:
        """The power of the domain; one that is not there is off."""
        return self.seen.domain.power if self.seen.domain else Power.STOPPED

    @property
    def reason(self) -> str:
        """Why the domain has that power."""
        return self.seen.domain.reason if self.seen.domain else "absent"

    @property
    def active(self) -> bool:
        """Whether the guest has a process: it runs, is paused, or may be either."""
        return self.power is not Power.STOPPED

    def epoch_is(self, compare: Callable[[int, int], bool]) -> bool:
        """`compare` of the domain's epoch with the VM's; false where there is no domain."""
        return self.seen.domain is not None and compare(
            self.seen.domain.epoch, self.vm.status.epoch
        )

    @property
    def overdue(self) -> bool:
        """Whether the time of a stop has passed."""
        return self.vm.status.stop_by is not None and self.stop_left_s <= 0

    @property
    def stop_left_s(self) -> float:
        """How long the guest still has to go off; 0 where no stop is asked for."""
        return self._left_s(self.seen.stop_left_s, self.vm.status.stop_by)

    @property
    def restart_left_s(self) -> float:
        """How long the next start still waits."""
        return self._left_s(self.seen.restart_left_s, self.vm.status.restart_at)

    def _left_s(self, counted_s: float | None, at: datetime | None) -> float:
        if at is None:
            return 0.0
        return max(0.0, (at - self.now).total_seconds()) if counted_s is None else counted_s

    @property
    def run_open(self) -> bool:
        """Whether a run is on record as begun and not yet as ended."""
        return self.vm.status.runs_with is not None

    @property
    def to_release(self) -> tuple[str, ...]:
        """The names of disks, and the ports of cards, that the spec asks for no more and that
        the guest does not have any more."""
        domain = self.seen.domain
        disks = domain.disks if domain and self.active else ()
        nics = domain.nics if domain and self.active else ()
        return (
            *(d.name for d in disks_leaving(self.vm) if d.name not in disks),
            *(n.port for n in nics_leaving(self.vm) if n.mac not in nics),
        )

    @property
    def disk_failed(self) -> bool:
        """Whether the guest was stopped because a disk of its failed."""
        return self.power is Power.PAUSED and self.reason == "io_error"

    @property
    def went_off_by_itself(self) -> bool:
        """Whether the guest powered itself off in the present run, nobody having asked."""
        return (
            self.power is Power.STOPPED
            and self.reason == "shutdown"
            and self.epoch_is(lambda has, due: has == due)
            and self.run_open
            and self.vm.status.stop_by is None
        )

    @property
    def tuned(self) -> bool:
        """Whether the guest gets its processors as it should."""
        domain, wanted = self.seen.domain, self.seen.tuning
        return wanted is not None and domain is not None and domain.cpu == wanted

    def seconds_until(self, time: datetime | None, after_s: float) -> float:
        """Seconds from now until `after_s` after something that was done at `time`; 0 where that
        is past, or it was not done."""
        return 0.0 if time is None else max(0.0, after_s - elapsed_s(time, self.now))


@dataclass(frozen=True)
class Rule:
    """One row of the table."""

    name: str
    why: str
    when: Callable[[Situation], bool]
    then: Callable[[Situation], tuple[Action, ...]] = field(default=lambda s: ())
    look_s: Callable[[Situation], float | None] = field(default=lambda s: None)
