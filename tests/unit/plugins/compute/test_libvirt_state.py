"""The tables of libvirt's numbers agree with libvirt's own names, and never guess."""

import pytest

from trivet.contracts.compute.vm import Power
from trivet.plugins.compute.libvirt_domains import version_text
from trivet.plugins.compute.libvirt_state import power_after, power_of

libvirt = pytest.importorskip("libvirt")

STATES = [
    ("RUNNING", "RUNNING_BOOTED", Power.RUNNING, "booted"),
    ("RUNNING", "RUNNING_UNPAUSED", Power.RUNNING, "user"),
    ("PAUSED", "PAUSED_USER", Power.PAUSED, "user"),
    ("PAUSED", "PAUSED_IOERROR", Power.PAUSED, "io_error"),
    ("PAUSED", "PAUSED_CRASHED", Power.PAUSED, "crashed"),
    ("SHUTOFF", "SHUTOFF_SHUTDOWN", Power.STOPPED, "shutdown"),
    ("SHUTOFF", "SHUTOFF_DESTROYED", Power.STOPPED, "destroyed"),
    ("SHUTOFF", "SHUTOFF_CRASHED", Power.STOPPED, "crashed"),
    ("SHUTOFF", "SHUTOFF_FAILED", Power.STOPPED, "crashed"),
    ("SHUTOFF", "SHUTOFF_DAEMON", Power.STOPPED, "unknown"),
    ("SHUTDOWN", "SHUTDOWN_USER", Power.RUNNING, "user"),
    ("CRASHED", "CRASHED_PANICKED", Power.STOPPED, "crashed"),
    ("NOSTATE", "NOSTATE_UNKNOWN", Power.UNKNOWN, "unknown"),
]
EVENTS = [
    ("STARTED", "STARTED_BOOTED", (Power.RUNNING, "booted")),
    ("SUSPENDED", "SUSPENDED_PAUSED", (Power.PAUSED, "user")),
    ("SUSPENDED", "SUSPENDED_IOERROR", (Power.PAUSED, "io_error")),
    ("RESUMED", "RESUMED_UNPAUSED", (Power.RUNNING, "user")),
    ("STOPPED", "STOPPED_SHUTDOWN", (Power.STOPPED, "shutdown")),
    ("STOPPED", "STOPPED_DESTROYED", (Power.STOPPED, "destroyed")),
    ("STOPPED", "STOPPED_CRASHED", (Power.STOPPED, "crashed")),
    ("STOPPED", "STOPPED_FAILED", (Power.STOPPED, "crashed")),
    ("CRASHED", "CRASHED_PANICKED", (Power.STOPPED, "crashed")),
    ("DEFINED", "DEFINED_ADDED", None),
]


@pytest.mark.parametrize(("state", "reason", "power", "why"), STATES)
def test_states(state: str, reason: str, power: Power, why: str) -> None:
    numbers = (getattr(libvirt, f"VIR_DOMAIN_{name}") for name in (state, reason))
    if state == "SHUTDOWN":
        assert power_of(*numbers)[0] is power
    else:
        assert power_of(*numbers) == (power, why)


@pytest.mark.parametrize(("event", "detail", "told"), EVENTS)
def test_events(event: str, detail: str, told: tuple[Power, str] | None) -> None:
    numbers = (getattr(libvirt, f"VIR_DOMAIN_EVENT_{name}") for name in (event, detail))
    assert power_after(*numbers) == told


def test_what_nobody_knows_is_unknown() -> None:
    assert power_of(99, 99) == (Power.UNKNOWN, "unknown")
    assert power_after(99, 0) is None


def test_versions_read_as_people_write_them() -> None:
    assert version_text(7002022) == "7.2.22"
