"""The node's plan for a VM: over the whole product of states, as a table, and as properties.

`Model` is a node made of plain values that obeys actions, so that "it converges" is a fact
about the plan and not about a test's script.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivet.compute.domain import actions as do
from trivet.compute.domain import vm_status
from trivet.compute.domain.node_plan import RULES, plan
from trivet.compute.domain.situation import Plan, Seen
from trivet.compute.domain.vm_status import (
    RESUME_LAST_S,
    resume_delay_s,
    resumes_forgotten_s,
    resumes_in_a_row,
)
from trivet.contracts.compute.hypervisor import DomainState, DomainTuning
from trivet.contracts.compute.vm import (
    DiskRequest,
    NicRequest,
    Power,
    Vm,
    VmDisk,
    VmNic,
    VmSpec,
    VmStatus,
    WantedPower,
)
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ID = ResourceId("vm-1")
REASONS = ("booted", "shutdown", "destroyed", "crashed", "io_error", "user", "unknown")


def make_vm(
    wanted: WantedPower = WantedPower.RUNNING,
    *,
    power: Power = Power.STOPPED,
    epoch: int = 0,
    run_open: bool = False,
    stop_by: datetime | None = None,
    deleting: bool = False,
    restart_at: datetime | None = None,
) -> Vm:
    spec = VmSpec(power=wanted)
    vm = Vm(
        meta=Meta(id=ID, name="web", created_at=NOW, deleting_at=NOW if deleting else None),
        spec=spec,
        status=VmStatus(
            power=power,
            node="n1",
            epoch=epoch,
            stop_by=stop_by,
            runs_with=spec.hardware if run_open else None,
            restart_at=restart_at,
            observed_generation=1,
        ),
    )
    told = vm_status.hardware_condition(vm, can_plug=False)
    return vm_status.tell(vm, told, NOW)


def make_domain(power: Power, epoch: int = 1, reason: str = "booted") -> DomainState:
    return DomainState(id=ID, name="web", generation=1, epoch=epoch, power=power, reason=reason)


R, S, P, U = Power.RUNNING, Power.STOPPED, Power.PAUSED, Power.UNKNOWN
RUN, OFF, PAUSE = WantedPower.RUNNING, WantedPower.STOPPED, WantedPower.PAUSED
LATER, PAST = NOW + timedelta(seconds=60), NOW - timedelta(seconds=1)
UP = make_domain(R)
READY = do.Preparation()
LACKING = do.Preparation(missing=("disk root: slow",))

DATA = VmDisk(name="data", volume="web-data", size_gib=1)
CARD = VmNic(port="web-0", network="lan", name="0", mac="02:00:00:00:00:01")


def changing(
    *,
    asked: bool,
    disks: tuple[VmDisk, ...] = (),
    nics: tuple[VmNic, ...] = (),
    has: DomainState = UP,
    power: Power = R,
) -> Vm:
    """A running VM that asks for disk `data` and card `0`, or for neither, with these on record
    and with what `has` has seen in it."""
    vm = make_vm(epoch=1, power=power, run_open=power is R)
    if asked:
        wishes = {"disks": (DiskRequest(name="data", size_gib=1),), "nics": (LAN,)}
        vm = vm.model_copy(update={"spec": vm.spec.model_copy(update=wishes)})
    vm = vm.with_status(disks=disks, nics=nics)
    live = do.Live(has.disks, has.nics, 0, 0, can_plug=True) if power is R else None
    return vm_status.as_seen(vm, do.Record(power, "booted", ready=False, live=live), NOW)


def growing() -> Vm:
    """A running VM with one vcpu that asks for two, with room for four, and has it on record."""
    vm = make_vm(epoch=1, power=R, run_open=True)
    runs = VmSpec(vcpus=1, memory_mib=128, max_vcpus=4)
    asked = runs.model_copy(update={"vcpus": 2})
    vm = vm.model_copy(update={"spec": asked}).with_status(runs_with=runs.hardware)
    live = do.Live((), (), 1, 128, can_plug=True)
    return vm_status.as_seen(vm, do.Record(R, "booted", ready=False, live=live), NOW)


SMALL = UP.model_copy(update={"vcpus": 1, "memory_mib": 128})
PLAIN = DomainTuning(shares=1024)
LAN = NicRequest(network="lan", name="0")
FULL = UP.model_copy(update={"disks": ("data",), "nics": (CARD.mac,)})

TABLE: list[tuple[str, Vm, Seen]] = [
    ("unreachable", make_vm(), Seen(unreachable="away")),
    ("delete-cut", make_vm(epoch=1, deleting=True), Seen(UP)),
    ("delete-undefine", make_vm(epoch=1, deleting=True), Seen(make_domain(S))),
    ("delete-let-go", make_vm(deleting=True), Seen()),
    ("newer-epoch", make_vm(epoch=1), Seen(make_domain(R, epoch=2))),
    ("older-epoch", make_vm(epoch=2), Seen(make_domain(R, epoch=1))),
    (
        "guest-off",
        make_vm(epoch=1, power=R, run_open=True),
        Seen(make_domain(S, reason="shutdown")),
    ),
    (
        "record-end",
        make_vm(epoch=1, power=R, run_open=True, stop_by=LATER),
        Seen(make_domain(S, reason="shutdown")),
    ),
    (
        "record-end",
        make_vm(epoch=1, power=R, run_open=True),
        Seen(make_domain(S, reason="crashed")),
    ),
    (
        "stop-detach",
        make_vm(epoch=1, power=R, run_open=True),
        Seen(make_domain(S, reason="shutdown"), draining=True),
    ),
    ("pause-lost", make_vm(PAUSE, epoch=1, power=P), Seen(make_domain(S, reason="crashed"))),
    ("stop-set-deadline", make_vm(OFF, epoch=1, power=R), Seen(UP)),
    ("stop-set-deadline", make_vm(RUN, epoch=1, power=R), Seen(UP, draining=True)),
    ("stop-cut", make_vm(OFF, epoch=1, power=R, stop_by=PAST), Seen(UP)),
    ("stop-thaw", make_vm(OFF, epoch=1, power=P, stop_by=LATER), Seen(make_domain(P))),
    ("stop-ask", make_vm(OFF, epoch=1, power=R, stop_by=LATER), Seen(UP)),
    ("stop-wait", make_vm(OFF, epoch=1, power=R, stop_by=LATER), Seen(UP, asked_at=NOW)),
    (
        "stop-ask",
        make_vm(OFF, epoch=1, power=R, stop_by=LATER),
        Seen(UP, asked_at=NOW - timedelta(seconds=3)),
    ),
    (
        "stop-wait",
        make_vm(OFF, epoch=1, power=R, stop_by=LATER),
        Seen(UP.model_copy(update={"ready": True}), asked_at=NOW - timedelta(seconds=3)),
    ),
    (
        "stop-wait",
        make_vm(OFF, epoch=1, power=P, stop_by=LATER),
        Seen(make_domain(P, reason="io_error")),
    ),
    ("stop-detach", make_vm(OFF), Seen()),
    ("stop-record", make_vm(OFF, power=U), Seen(detached=True)),
    ("stopped", make_vm(OFF), Seen(detached=True)),
    ("restart-wait", make_vm(epoch=1, restart_at=LATER), Seen()),
    ("prepare", make_vm(), Seen()),
    ("parts-missing", make_vm(), Seen(prepared=LACKING)),
    ("boot", make_vm(), Seen(prepared=READY)),
    ("stop-overtaken", make_vm(epoch=1, power=R, stop_by=PAST), Seen(UP)),
    ("pause", make_vm(PAUSE, epoch=1, power=R), Seen(UP)),
    ("disk-error-record", make_vm(epoch=1, power=R), Seen(make_domain(P, reason="io_error"))),
    (
        "disk-error-wait",
        make_vm(epoch=1, power=P),
        Seen(make_domain(P, reason="io_error"), resumed_at=NOW, resumes=1),
    ),
    ("disk-error-prepare", make_vm(epoch=1, power=P), Seen(make_domain(P, reason="io_error"))),
    (
        "disk-error-lacks",
        make_vm(epoch=1, power=P),
        Seen(make_domain(P, reason="io_error"), prepared=LACKING),
    ),
    (
        "disk-error-resume",
        make_vm(epoch=1, power=P),
        Seen(make_domain(P, reason="io_error"), prepared=READY),
    ),
    ("resume", make_vm(epoch=1, power=P), Seen(make_domain(P, reason="user"))),
    ("record", make_vm(epoch=1, power=S, run_open=True), Seen(UP)),
    ("settled", make_vm(epoch=1, power=R), Seen(UP)),
    ("release", changing(asked=False, disks=(DATA,), power=S), Seen(detached=True)),
    (
        "live-unplug",
        changing(asked=False, disks=(DATA,), nics=(CARD,), has=FULL),
        Seen(FULL, can_plug=True),
    ),
    (
        "live-wait",
        changing(asked=False, disks=(DATA,), has=FULL),
        Seen(FULL, can_plug=True, asked_off={"data": NOW}),
    ),
    ("live-release", changing(asked=False, disks=(DATA,)), Seen(UP, can_plug=True)),
    ("live-plug", changing(asked=True, disks=(DATA,)), Seen(UP, can_plug=True)),
    ("live-wait", changing(asked=True), Seen(UP, can_plug=True)),
    (
        "live-grow",
        changing(
            asked=True,
            disks=(DATA.model_copy(update={"size_gib": 1, "guest_gib": 0}),),
            nics=(CARD,),
            has=FULL,
        ).with_status(
            disks=(DATA.model_copy(update={"size_gib": 2, "guest_gib": 1, "attached": True}),)
        ),
        Seen(FULL, can_plug=True),
    ),
    ("live-scale", growing(), Seen(SMALL, can_plug=True)),
    ("live-tune", make_vm(epoch=1, power=R, run_open=True), Seen(UP, tuning=PLAIN)),
    (
        "settled",
        make_vm(epoch=1, power=R, run_open=True),
        Seen(UP.model_copy(update={"cpu": PLAIN}), tuning=PLAIN),
    ),
    (
        "settled",
        changing(asked=True, disks=(DATA,), nics=(CARD,), has=FULL),
        Seen(FULL, can_plug=True),
    ),
]


@pytest.mark.parametrize(("rule", "vm", "seen"), TABLE, ids=[r for r, _, _ in TABLE])
def test_table(rule: str, vm: Vm, seen: Seen) -> None:
    assert plan(vm, seen, NOW).rule == rule


def test_every_rule_is_in_the_table_and_says_why() -> None:
    assert {rule.name for rule in RULES} == {rule for rule, _, _ in TABLE}
    assert all(rule.why for rule in RULES)


def every_state() -> list[tuple[Vm, Seen]]:
    """The whole product of what can be wanted, on record, and seen."""
    states = []
    domains = [None] + [make_domain(p, e, r) for p in Power for e in (1, 2, 3) for r in REASONS]
    for wanted, power, run_open, stop_by, deleting in product(
        WantedPower, Power, (True, False), (None, PAST, LATER), (True, False)
    ):
        vm = make_vm(
            wanted, power=power, epoch=2, run_open=run_open, stop_by=stop_by, deleting=deleting
        )
        for domain, draining in product(domains, (True, False)):
            states.append((vm, Seen(domain, draining=draining)))
    return states


def test_safety_over_the_product_of_states() -> None:
    for vm, seen in every_state():
        for prepared in (None, READY, LACKING):
            step = plan(vm, replace(seen, prepared=prepared), NOW)
            off = seen.domain is None or seen.domain.power is S
            for action in step.actions:
                match action:
                    case do.Boot(epoch):
                        assert off
                        assert epoch == vm.status.epoch + 1
                        assert prepared == READY
                        assert not seen.draining
                        assert vm.spec.power is not OFF
                    case do.Detach() | do.Undefine() | do.LetGo() | do.RecordPowerOff():
                        assert off, "disks and domains go only from under what is off"
                    case do.Record(power):
                        assert power is (seen.domain.power if seen.domain else S)
                    case do.CutPower():
                        older = seen.domain is not None and seen.domain.epoch < vm.status.epoch
                        overdue = vm.status.stop_by == PAST
                        assert vm.meta.deleting_at or older or overdue
            if seen.domain and seen.domain.epoch > 2 and not vm.meta.deleting_at:
                assert step.rule == "newer-epoch"


def test_what_is_unknown_is_never_acted_on() -> None:
    for vm, seen in every_state():
        step = plan(vm, replace(seen, unreachable="away"), NOW)
        assert step.actions == (do.MarkUnknown("away"),)


@dataclass
class Node:
    """A node that obeys. `deaf`: its guests do not hear the power button."""

    vm: Vm
    domain: DomainState | None
    deaf: bool = False
    draining: bool = False
    now: datetime = NOW
    seen: Seen = field(default_factory=Seen)
    gone: bool = False

    def step(self) -> Plan:
        self.seen = replace(self.seen, domain=self.domain, draining=self.draining)
        step = plan(self.vm, self.seen, self.now)
        for action in step.actions:
            self.obey(action)
        return step

    def obey(self, action: do.Action) -> None:
        match action:
            case do.Prepare():
                self.seen = replace(self.seen, prepared=READY, detached=False)
            case do.Boot(epoch):
                self.vm = vm_status.booting(self.vm, epoch, (), (), self.now)
                self.domain = make_domain(R, epoch)
                self.seen = replace(self.seen, prepared=None)
            case do.AskShutdown():
                self.seen = replace(self.seen, asked_at=self.now)
                if not self.deaf:
                    self.power(S, "shutdown")
            case do.CutPower():
                self.power(S, "destroyed")
            case do.Suspend():
                self.power(P, "user")
            case do.Resume():
                self.power(R, "booted")
                self.seen = replace(self.seen, resumed_at=self.now, resumes=1)
            case do.Undefine():
                self.domain = None
            case do.Detach():
                self.seen = replace(self.seen, detached=True)
            case do.LetGo():
                self.gone = True
            case do.Record():
                self.vm = vm_status.as_seen(self.vm, action, self.now)
            case do.RecordPowerOff():
                spec = self.vm.spec.model_copy(update={"power": OFF})
                off = do.Record(S, "shutdown", ready=False)
                self.vm = vm_status.as_seen(self.vm.with_spec(spec), off, self.now)
            case do.AdoptEpoch(epoch, active):
                hardware = self.vm.spec.hardware if active else None
                self.vm = self.vm.with_status(epoch=epoch, runs_with=hardware)
            case do.SetStopBy(grace_s):
                self.vm = self.vm.with_status(stop_by=self.now + timedelta(seconds=grace_s))
            case do.ForgetStop():
                self.vm = self.vm.with_status(stop_by=None)

    def power(self, power: Power, reason: str) -> None:
        assert self.domain is not None
        self.domain = self.domain.model_copy(update={"power": power, "reason": reason})

    def settle(self) -> None:
        for _ in range(200):
            step = self.step()
            if self.gone:
                return
            if step.idle:
                if step.rule in ("settled", "stopped"):
                    return
                self.now += timedelta(seconds=max(step.look_s or 0, 0.1))
        raise AssertionError(f"not settled: {plan(self.vm, self.seen, self.now)}")


@dataclass
class PlugNode(Node):
    """One with disks, whose controller does its part at once. `fresh`: begun after the wish."""

    fresh: bool = True

    def ask(self, names: list[str], power: WantedPower) -> None:
        disks = tuple(DiskRequest(name=name, size_gib=1) for name in names)
        wishes = {"disks": disks, "power": power}
        self.vm = self.vm.with_spec(self.vm.spec.model_copy(update=wishes))
        self.fresh = False

    def step(self) -> Plan:
        asked = {d.name for d in self.vm.spec.disks}
        kept = tuple(d for d in self.vm.status.disks if not d.released or d.name in asked)
        new = asked - {d.name for d in kept}
        kept = tuple(d.model_copy(update={"released": False}) for d in kept)
        made = tuple(VmDisk(name=n, volume=n, size_gib=1) for n in sorted(new))
        self.vm = self.vm.with_status(disks=(*kept, *made))
        return super().step()

    def obey(self, action: do.Action) -> None:
        super().obey(action)
        match action:
            case do.Boot():
                self.fresh = True
                self.has({d.name for d in self.vm.spec.disks})
            case do.PlugDisk(name):
                self.has(self.disks | {name})
            case do.Unplug(name):
                self.has(self.disks - {name})
            case do.Release(names):
                gone = {"released": True, "attached": False}
                disks = self.vm.status.disks
                self.vm = self.vm.with_status(
                    disks=tuple(d.model_copy(update=gone) if d.name in names else d for d in disks)
                )

    @property
    def disks(self) -> set[str]:
        return set(self.domain.disks) if self.domain else set()

    def has(self, disks: set[str]) -> None:
        assert self.domain is not None
        self.domain = self.domain.model_copy(update={"disks": tuple(sorted(disks))})


def test_it_converges_from_every_state() -> None:
    # Every third: the product's factors have no 3 in them but one, so all pairs still meet.
    for vm, seen in every_state()[::3]:
        if seen.domain is not None and seen.domain.power is U:
            continue
        for deaf in (True, False):
            node = Node(vm, seen.domain, deaf=deaf, draining=seen.draining)
            node.settle()
            if vm.meta.deleting_at:
                assert node.gone
                assert node.domain is None
                continue
            off = node.domain is None or node.domain.power is S
            wanted = OFF if seen.draining else node.vm.spec.power
            assert off is (wanted is OFF)
            assert node.vm.status.power is (node.domain.power if node.domain else S)
            if not off:
                assert node.domain is not None
                assert node.domain.epoch == node.vm.status.epoch
            before = (node.vm, node.domain)
            assert node.step().rule in ("settled", "stopped")
            assert (node.vm, node.domain) == before, "settled is settled"


@given(st.lists(st.sampled_from([RUN, OFF, PAUSE]), max_size=6), st.booleans())
@settings(max_examples=200, deadline=None)
def test_any_sequence_of_wishes_ends_as_the_last_one_says(
    wishes: list[WantedPower], deaf: bool
) -> None:
    node = Node(make_vm(), None, deaf=deaf)
    node.settle()
    epoch = 0
    for wish in wishes:
        if wish is PAUSE and node.vm.spec.power is OFF:
            continue
        node.vm = node.vm.with_spec(node.vm.spec.model_copy(update={"power": wish}))
        node.settle()
        assert node.vm.status.power.value == wish.value
        assert node.vm.status.epoch >= epoch
        epoch = node.vm.status.epoch


@given(
    st.lists(st.tuples(st.sets(st.sampled_from("abcd")), st.booleans()), max_size=5), st.booleans()
)
@settings(max_examples=200, deadline=None)
def test_any_sequence_of_disks_ends_as_the_last_one_says(
    wishes: list[tuple[set[str], bool]], live: bool
) -> None:
    """Whatever is asked for, also while the VM is off: the guest then has just that."""
    node = PlugNode(make_vm(), None, seen=Seen(can_plug=live))
    node.settle()
    for names, on in wishes:
        node.ask(sorted(names), RUN if on else OFF)
        node.settle()
        if on and (live or node.fresh):
            assert node.domain is not None
            assert set(node.domain.disks) == names
        elif not on:
            assert {d.name for d in node.vm.status.disks} == names


def test_a_guest_that_finds_no_space_waits_and_says_which_remedy() -> None:
    full = do.Preparation(missing=("disk root: pool p is full",), pool_full=True)
    seen = Seen(make_domain(P, reason="io_error"), prepared=full)
    assert plan(make_vm(epoch=1, power=P), seen, NOW).actions == (
        do.Wait("disk root: pool p is full", "PoolFull"),
    )


def test_a_disk_that_fails_again_is_tried_soon_and_then_seldom():
    delays = [resume_delay_s(n) for n in range(30)]
    assert delays[:2] == [0.0, 0.25]
    assert delays == sorted(delays)
    assert delays[-1] == RESUME_LAST_S


def test_tries_count_in_a_row_until_the_guest_has_run_for_a_while():
    held = [NOW - timedelta(seconds=resumes_forgotten_s(3)) * n for n in (0.9, 1.1)]
    assert [resumes_in_a_row(3, last, NOW) for last in (*held, None)] == [4, 1, 1]
    assert resumes_forgotten_s(1) < 10 < resumes_forgotten_s(9)
