"""Real guests come and go, two at a time: no process, domain, link, rule, file or key stays.

A run has a short sample; `--soak` has twenty guests.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from trivet.testing.lab.campaign import settled
from trivet.testing.lab.inventory import difference
from trivet.testing.lab.node import LabNode, NotInTime, until

pytestmark = pytest.mark.root

BOUND_S = 240.0
SLACK = {"threads": 6, "descriptors": 4, "tasks": 4, "consumers": 8}


def cycles(node: LabNode, names: list[str]) -> None:
    """Let the guests come and go, two at a time."""
    left: Iterator[str] = iter(names)
    failed: list[BaseException] = []

    def one_after_the_other() -> None:
        try:
            for name in left:
                node.create(name)
                until(f"{name} has booted", lambda name=name: node.ready(name), BOUND_S)
                address = node.guest(name).address  # one that an earlier guest has leased
                until(f"{name} answers", lambda at=address: node.answers(at), BOUND_S)
                node.act(name, "delete")
                until(f"{name} is gone", lambda name=name: node.vm(name) is None, BOUND_S)
        except BaseException as error:  # noqa: BLE001 - raised by the test's own thread below
            failed.append(error)

    threads = [threading.Thread(target=one_after_the_other) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


@pytest.mark.parametrize("number", [2, pytest.param(20, marks=pytest.mark.soak)])
def test_no_guest_leaves_anything_behind(lab_node: LabNode, number: int) -> None:
    cycles(lab_node, ["warm-0", "warm-1"])
    before = settled(lab_node)
    cycles(lab_node, [f"cycle-{n}" for n in range(number)])
    found: list[str] = []

    def clean() -> bool:
        found[:] = difference(before, lab_node.everything(), SLACK)
        return not found

    try:
        until("nothing is left over", clean, 60, 1.0)
    except NotInTime:
        pytest.fail("left over:\n" + "\n".join(found))
