"""Processors are shared out as asked: what guests that burn all they can get is seen from outside.

Both guests are bound to one processor, so that they have to share it whatever else the machine
does: the ratio of what they get is theirs alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from trivet.client import Client
from trivet.testing.lab.node import Guest, LabNode, until

pytestmark = [pytest.mark.root, pytest.mark.soak]

BOUND_S = 240.0
TICKS = os.sysconf("SC_CLK_TCK")
BURNED_S = 12.0
"""What both together have to get before they are compared."""
WEIGHTS = {"heavy": 3072, "light": 1024}
RATIO = 3.0


def create(node: LabNode, name: str) -> None:
    spec = {
        "image": "tiny",
        "memory_mib": 128,
        "nics": [{"network": "default"}],
        "cpu": {"shares": WEIGHTS[name], "pin": [0]},
    }

    def ask(client: Client) -> None:
        client.vms.create(name, spec=spec)

    node.patiently(ask, BOUND_S)


def tune(node: LabNode, name: str, **fields: object) -> None:
    """Change a running guest, and wait until that is in force."""
    node.act(name, "edit", BOUND_S, spec={"cpu": fields})

    def settled() -> bool:
        vm = node.vm(name)
        return vm is not None and vm.settled()

    until(f"{name} is tuned", settled, BOUND_S)


def burned_s(guest: Guest) -> float:
    """How much processor time the guest's process has had."""
    fields = Path(f"/proc/{guest.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@pytest.fixture
def burning(lab_node: LabNode) -> Iterator[dict[str, Guest]]:
    try:
        for name in WEIGHTS:
            create(lab_node, name)
        for name in WEIGHTS:
            until(f"{name} has booted", partial(lab_node.ready, name), BOUND_S)
        guests = {name: lab_node.guest(name) for name in WEIGHTS}
        for guest in guests.values():
            lab_node.console(guest, "(while :; do :; done) & :")
        yield guests
    finally:
        for name in WEIGHTS:
            lab_node.act(name, "delete")


def ratio(guests: dict[str, Guest]) -> float:
    """What the heavy one gets over what the light one gets."""
    before = {name: burned_s(guest) for name, guest in guests.items()}

    def got() -> dict[str, float]:
        return {name: burned_s(guest) - before[name] for name, guest in guests.items()}

    until("they have burned enough", lambda: sum(got().values()) >= BURNED_S, BOUND_S)
    now = got()
    return now["heavy"] / now["light"]


def of_one_processor(guest: Guest) -> float:
    """Which part of a processor the guest gets."""
    began, before = time.monotonic(), burned_s(guest)
    until("it has burned enough", lambda: burned_s(guest) - before >= BURNED_S / 4, BOUND_S)
    return (burned_s(guest) - before) / (time.monotonic() - began)


def test_shares_and_a_limit_have_their_effect(
    lab_node: LabNode, burning: dict[str, Guest], tell_at_the_end: Callable[[str], None]
) -> None:
    as_created = ratio(burning)
    tune(lab_node, "heavy", shares=WEIGHTS["light"])
    alike = ratio(burning)
    tune(lab_node, "light", limit_pct=20)
    limited = of_one_processor(burning["light"])
    tell_at_the_end(
        f"shares 3:1 gave {as_created:.2f}, 1:1 gave {alike:.2f};"
        f" a limit of 20 % gave {100 * limited:.1f} % of one processor"
    )
    assert RATIO * 0.85 < as_created < RATIO * 1.15
    assert 0.85 < alike < 1.15
    assert limited < 0.25  # the limit is the vcpu's; the process has some threads more
