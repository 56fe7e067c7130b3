"""Resources and the events that are derived from their changes."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from trivet.contracts.compute.vm import VM, Power, Vm, VmSpec, VmStatus, WantedPower
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Condition, Meta, Phase, derive_events

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def vm(**status: object) -> Vm:
    meta = Meta(id=ResourceId("vm-1"), name="web", project="lab", created_at=NOW)
    return Vm(meta=meta, spec=VmSpec(), status=VmStatus.model_validate(status))


def verbs(before: Vm | None, after: Vm | None) -> list[str]:
    return [e.type.split(".")[3] for e in derive_events(VM, before, after, NOW)]


def test_a_new_spec_is_a_new_generation_and_an_equal_one_is_not() -> None:
    a = vm()
    assert a.with_spec(VmSpec()).meta.generation == 1
    assert a.with_spec(VmSpec(vcpus=2)).meta.generation == 2


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (None, vm(), ["created"]),
        (vm(), None, ["deleted"]),
        (vm(), vm(), []),
        (vm(), vm(phase="ready"), ["phase_changed"]),
        (vm(), vm(power="running"), ["started"]),
        (vm(power="running"), vm(power="paused"), ["paused"]),
        (vm(power="paused"), vm(power="running"), ["resumed"]),
        (vm(power="running"), vm(power="unknown"), ["lost"]),
        (vm(power="running"), vm(power="running", guest_ready=True), ["booted"]),
        (vm(), vm(node="n1", phase="ready"), ["phase_changed", "placed"]),
        (vm(), vm().with_spec(VmSpec(vcpus=2)), ["edited"]),
    ],
)
def test_events_are_what_changed(before: Vm | None, after: Vm | None, expected: list[str]) -> None:
    assert verbs(before, after) == expected


def test_every_derived_event_is_declared() -> None:
    declared = {t.type for t in VM.event_types}
    for before, after in ((None, vm()), (vm(), vm(power="running", node="n1", phase="ready"))):
        assert {e.type for e in derive_events(VM, before, after, NOW)} <= declared


def test_settled_needs_the_power_that_was_asked_for() -> None:
    ready = vm(phase="ready", observed_generation=1, power="running")
    assert ready.settled()
    assert not ready.with_status(power=Power.STOPPED).settled()
    assert not ready.with_status(power=Power.UNKNOWN).settled()
    assert not ready.with_spec(VmSpec(power=WantedPower.STOPPED)).settled()
    assert ready.with_status(phase=Phase.FAILED, power=Power.STOPPED).settled()


def test_a_condition_keeps_since_while_it_says_the_same() -> None:
    later = datetime(2026, 1, 3, tzinfo=UTC)
    said = Condition(type="Scheduled", status="false", reason="NoNode")
    status = VmStatus().with_condition(said, NOW).with_condition(said, later)
    assert [c.since for c in status.conditions] == [NOW]
    turned = status.with_condition(said.model_copy(update={"status": "true"}), later)
    assert [c.since for c in turned.conditions] == [later]


@pytest.mark.parametrize("name", ["", "Web", "a_b", "-a", "a-", "a" * 64, "a.b", "ä", "a\n", "a/b"])
def test_names_are_dns_labels(name: str) -> None:
    with pytest.raises(ValidationError):
        Meta(id=ResourceId("x"), name=name, created_at=NOW)
