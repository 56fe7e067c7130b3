"""One node for real, as its user has it: up, a guest, down, up, kills, and nothing left.

The machine's own instance is used, through the commands of README; where one lives already the
test steps aside. The steps build on each other and run in this order.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trivet.host import processes, traces
from trivet.host.layout import Layout

pytestmark = pytest.mark.root

TOP = Path(__file__).parents[2]
LAYOUT = Layout()
SERVICES = ("compute", "storage", "network", "security", "gateway", "nats")


def trivet(*arguments: str, timeout_s: float = 300, check: bool = True) -> str:
    """Run a command of the checkout as root; its standard output."""
    done = subprocess.run(
        [str(TOP / "trivet"), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if check and done.returncode:
        pytest.fail(f"trivet {' '.join(arguments)}: {done.returncode}\n{done.stderr[-3000:]}")
    return done.stdout


def vm(name: str) -> Any:
    return json.loads(trivet("vm", "show", name, "-o", "json"))


def items(answer: Any) -> list[Any]:
    """The resources of a list's answer."""
    found: list[Any] = answer["items"] if isinstance(answer, dict) else answer
    return found


def until(what: str, condition: Callable[[], bool], seconds: float = 90) -> None:
    """Wait for a condition; commands may fail meanwhile, for services are being killed."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what}")
        time.sleep(0.3)


def answers(address: str) -> bool:
    return "true" in trivet("network", "ping", "default", address, check=False)


def guest_pid(name: str) -> int:
    """The process of a guest."""
    id_ = vm(name)["meta"]["id"]
    found = [p for p in processes.pids() if id_ in " ".join(processes.arguments(p))]
    qemu = [p for p in found if "qemu-system" in processes.arguments(p)[0]]
    assert len(qemu) == 1, qemu
    return qemu[0]


def kill(service: str) -> None:
    """kill -9, and wait until the supervisor has started it anew."""
    record = processes.load(service, LAYOUT.processes)
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)

    def anew() -> bool:
        now = processes.load(service, LAYOUT.processes)
        return now is not None and now.pid != record.pid and processes.alive(now)

    until(f"{service} runs again", anew)


@pytest.fixture(scope="module")
def node() -> Iterator[None]:
    """A node that was brought up here, and is taken away in the end, whatever happened."""
    if traces.ours(LAYOUT, traces.snapshot(LAYOUT)):
        pytest.skip("a Trivet instance lives on this machine")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    before = traces.snapshot(LAYOUT)
    try:
        trivet("up", timeout_s=600)
        yield
    finally:
        trivet("down", "--purge", timeout_s=300)
    after = traces.snapshot(LAYOUT)
    assert traces.ours(LAYOUT, after) == {}
    more = traces.added(before, after)
    more.pop("processes", None)  # the machine is shared: others may have begun some
    assert more == {}
    assert traces.lost(before, after) == {}


def test_a_guest_boots_and_answers(node: None) -> None:
    trivet("image", "build-tiny")
    trivet("vm", "create", "a", "--image", "tiny", "--network", "default", "--wait", "120")
    seen = vm("a")
    assert (seen["status"]["power"], seen["status"]["phase"]) == ("running", "ready")
    assert seen["status"]["guest_ready"]
    log = trivet("vm", "log", "a")
    assert "READY" in log
    assert "boots: 1" in log
    until("the guest answers", lambda: answers(seen["status"]["addresses"][0]))


def test_down_and_up_keep_vm_and_data(node: None) -> None:
    trivet("down")
    left = traces.ours(LAYOUT, traces.snapshot(LAYOUT))
    assert set(left) <= {"files"}, left
    trivet("up")
    until("the guest has booted again", lambda: "READY" in trivet("vm", "log", "a", check=False))
    assert "boots: 2" in trivet("vm", "log", "a")
    until("the guest answers", lambda: answers(vm("a")["status"]["addresses"][0]))


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_service_comes_back_and_the_guest_runs_on(node: None, service: str) -> None:
    before = vm("a")["status"]
    pid = guest_pid("a")
    kill(service)
    until(f"all is well after {service}", lambda: answers(before["addresses"][0]))
    assert guest_pid("a") == pid
    assert vm("a")["status"]["epoch"] == before["epoch"]


SAMPLE = ("compute", "storage")
CAMPAIGN = [
    pytest.param(name, marks=() if name in SAMPLE else pytest.mark.soak) for name in SERVICES
]


@pytest.mark.parametrize("service", CAMPAIGN)
def test_a_create_survives_a_kill_in_its_middle(node: None, service: str) -> None:
    name = f"m-{service}"
    trivet("vm", "create", name, "--image", "tiny", "--memory", "128MiB", "--network", "default")
    kill(service)

    def booted() -> bool:
        shown = trivet("vm", "show", name, "-o", "json", check=False)
        return bool(shown) and json.loads(shown)["status"]["guest_ready"]

    until(f"{name} has booted", booted, 240)
    listed = [json.loads(trivet(kind, "list", "-o", "json")) for kind in ("volume", "port")]
    names = [r["meta"]["name"] for answer in listed for r in items(answer)]
    assert sorted(n for n in names if n.startswith(name)) == [f"{name}-0", f"{name}-root"]
    trivet("vm", "delete", name, "--wait", "240")
    until("nothing of it is left", lambda: name not in trivet("volume", "list", "-o", "json"))


def test_the_audit_trail_is_whole(node: None) -> None:
    report = json.loads(trivet("audit", "verify", "-o", "json"))
    assert report["intact"]
    assert report["records"] > 0
