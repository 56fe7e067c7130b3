"""How a run's end is told, and how long the next one waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trivet.compute.domain.actions import Record
from trivet.compute.domain.vm_status import RESTART_LAST_S, as_seen, restart_delay_s
from trivet.contracts.compute.vm import VM, VM_DIED, Power, Vm, VmSpec, VmStatus
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta, derive_events

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=60)


@pytest.mark.parametrize(
    ("reason", "stop_by", "died"),
    [
        ("crashed", None, True),
        ("destroyed", None, True),
        ("absent", None, True),
        ("shutdown", None, False),
        ("destroyed", LATER, False),
    ],
)
def test_a_run_that_nobody_ended_is_an_event(
    reason: str, stop_by: datetime | None, died: bool
) -> None:
    spec = VmSpec()
    status = VmStatus(power=Power.RUNNING, node="n1", epoch=1, runs_with=spec.hardware)
    vm = Vm(
        meta=Meta(id=ResourceId("vm-1"), name="web", created_at=NOW),
        spec=spec,
        status=status.model_copy(update={"stop_by": stop_by, "started_at": NOW}),
    )
    off = as_seen(vm, Record(Power.STOPPED, reason, ready=False), NOW)
    types = [event.type for event in derive_events(VM, vm, off, NOW)]
    assert (VM_DIED.type in types) is died
    told = off.status.condition("LastRun")
    assert told is not None
    assert ("and Trivet did not do that" in told.message) is died


def test_crashes_in_a_row_wait_longer_and_longer_and_not_for_ever() -> None:
    delays = [restart_delay_s(n) for n in range(1, 30)]
    assert delays[0] == 0
    assert delays == sorted(delays)
    assert delays[-1] == RESTART_LAST_S
