"""`up` and `down` under bad conditions: cut in the middle and done again, two at once, without
name resolution, with a folder for temporary files that takes nothing, `down` while a VM is made.

A run has two at once; `--soak` all.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trivet.host import processes, traces
from trivet.host.caller import client_file
from trivet.host.layout import Layout
from trivet.testing.lab.machine import running
from trivet.testing.lab.node import LabNode, until

pytestmark = pytest.mark.root

SOAK = pytest.mark.soak
TOP = Path(__file__).parents[2]
PARTS = 8
"""The supervisor, nats, libvirtd and five services: one process each."""


@pytest.fixture(scope="module")
def node() -> Iterator[LabNode]:
    root = Path(tempfile.mkdtemp(prefix="tv-up-", dir="/run"))  # not where nothing can be written
    root.chmod(0o755)
    made = LabNode(Layout(root), TOP)
    try:
        yield made
    finally:
        made.trivet("down", "--purge")
    assert not list(root.iterdir())
    root.rmdir()


def begin_up(node: LabNode, *before: str, **more: str) -> subprocess.Popen[str]:
    env = {**os.environ, "TRIVET_ROOT": str(node.layout.root), **more}
    env["TRIVET_CONFIG"] = str(client_file(node.layout, env).path)
    return subprocess.Popen(
        (*before, str(TOP / "trivet"), "up"),
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def own_processes(node: LabNode) -> list[str]:
    return [name for name in running(node.layout) if "qemu" not in name]


STEPS = ("installing the services", "starting the services", "waiting")


@SOAK
@pytest.mark.parametrize("step", STEPS)
def test_up_that_was_cut_is_done_by_the_next(node: LabNode, step: str) -> None:
    """Killed in the middle of that step, with all that it runs for it (not the services)."""
    cut = begin_up(node)
    assert cut.stderr is not None
    for line in cut.stderr:
        if step in line:
            break
    time.sleep(0.4)  # a moment into the step: which one does not matter
    os.killpg(cut.pid, signal.SIGKILL)
    cut.communicate()
    node.trivet("up")
    until("it is well", node.healthy, 60)
    assert len(own_processes(node)) == PARTS, own_processes(node)
    node.trivet("down")
    assert own_processes(node) == []


def test_two_at_once_make_one_node(node: LabNode) -> None:
    both = [begin_up(node), begin_up(node)]
    said = [up.communicate(timeout=300)[1] for up in both]
    assert [up.returncode for up in both] == [0, 0], said
    assert len(own_processes(node)) == PARTS, own_processes(node)


@SOAK
def test_neither_names_nor_tmp_are_needed(node: LabNode) -> None:
    """A machine whose resolver is gone, and whose folder for temporary files takes nothing."""
    node.trivet("down")
    script = (
        "mount --make-rprivate / && mount --bind /dev/null /etc/resolv.conf && "
        "for folder in /tmp /var/tmp /dev/shm; do "
        "mount --bind $folder $folder && mount -o remount,bind,ro $folder || exit 1; done; "
        'cd / && exec "$@"'
    )
    up = begin_up(node, "unshare", "--mount", "sh", "-c", script, "sh")
    _, said = up.communicate(timeout=300)
    assert up.returncode == 0, said
    assert node.healthy()


@SOAK
def test_down_while_a_vm_is_made(node: LabNode) -> None:
    node.trivet("image", "build-tiny")
    node.create("cut")
    node.trivet("down")
    left = traces.ours(node.layout, traces.snapshot(node.layout))
    assert set(left) <= {"files"}, left
    node.trivet("up")
    until("the guest has booted", lambda: node.ready("cut"), 240)
    assert len(processes.load_all(node.layout.processes)) == PARTS
    node.act("cut", "delete")
    until("it is gone", lambda: node.vm("cut") is None, 120)
