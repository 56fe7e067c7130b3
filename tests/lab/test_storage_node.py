"""Disks of a real guest on one real node: a pool that fills up, servers that die, a volume that
grows, snapshots. The guest must see no error in any of it, and read what it wrote.

The steps build on each other and run in this order.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trivet.host.layout import Layout
from trivet.plugins.storage.node_process import daemons
from trivet.testing.lab.console import Console, console_socket
from trivet.testing.lab.node import LabNode

pytestmark = pytest.mark.root

TOP = Path(__file__).parents[2]
MIB = 2**20
WRITTEN_MIB, ROOM_MIB = 40, 20
"""What the guest writes, and the room that is left in the pool before."""


class Node:
    """The instance, its command line, and its guest's console."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.root = root = layout.root
        self.env = {
            **os.environ,
            "TRIVET_ROOT": str(root),
            "TRIVET_CONFIG": str(root / "etc/trivet/client.toml"),
        }

    def trivet(self, *arguments: str, timeout_s: float = 300, check: bool = True) -> str:
        done = subprocess.run(
            [str(TOP / "trivet"), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=self.env,
        )
        if check and done.returncode:
            pytest.fail(f"trivet {' '.join(arguments)}: {done.returncode}\n{done.stderr[-3000:]}")
        return done.stdout

    def show(self, kind: str, name: str) -> Any:
        return json.loads(self.trivet(kind, "show", name, "-o", "json"))

    def until(self, what: str, condition: Callable[[], bool], seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"not within {seconds} s: {what}")
            time.sleep(0.5)

    def power(self) -> str:
        return str(self.show("vm", "a")["status"]["power"])

    def console(self) -> Console:
        return Console(console_socket(self.layout, self.show("vm", "a")["meta"]["id"]))

    def guest(self, command: str, seconds: float = 240) -> str:
        """What a command of the guest says; it must end well."""
        with self.console() as console:
            return console.ask(command, seconds)

    def pool_folder(self, name: str) -> Path:
        id_ = self.show("pool", name)["meta"]["id"]
        (found,) = self.root.glob(f"var/**/pools/{id_}")
        return found


@pytest.fixture(scope="module")
def node(lab_node: LabNode) -> Iterator[Node]:
    made = Node(lab_node.layout)
    try:
        name = json.loads(made.trivet("node", "list", "-o", "json"))
        node_name = (name["items"] if isinstance(name, dict) else name)[0]["meta"]["name"]
        members = json.dumps([{"node": node_name, "file_gib": 1}])
        wide = ("--set", f"members={members}", "--set", "overcommit=20")
        made.trivet("pool", "create", "small", *wide, "--wait", "30")
        disks = ("--disk", "1GiB", "--disk", "1GiB,pool=small,name=data")
        guest = ("--image", "tiny", "--memory", "128MiB", *disks)
        made.trivet("vm", "create", "a", *guest, "--wait", "240")
        yield made
    finally:
        made.trivet("vm", "delete", "a", "--wait", "60", check=False)
        made.trivet("pool", "delete", "small", "--wait", "60", check=False)


def test_a_guest_that_fills_its_pool_is_paused_until_there_is_room(node: Node) -> None:
    folder = node.pool_folder("small")
    stat = os.statvfs(folder)
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, stat.f_bavail * stat.f_frsize - ROOM_MIB * MIB)
    with node.console() as console:
        write = f"dd if=/dev/zero bs=1M count={WRITTEN_MIB} 2>/dev/null | tr '\\0' x"
        console.tell(f"{write} | tee /dev/vdb | md5sum; sync")
        node.until("the guest is paused", lambda: node.power() == "paused")

        def told() -> bool:
            conditions = node.show("vm", "a")["status"]["conditions"]
            return any(c["reason"] == "PoolFull" and "grow" in c["message"] for c in conditions)

        node.until("it says why, and what to do", told)
        space = {c["type"]: c for c in node.show("pool", "small")["status"]["conditions"]}["Space"]
        assert (space["status"], space["reason"]) == ("false", "PoolFull")
        ballast.unlink()
        node.until("it runs on", lambda: node.power() == "running")
        written, code = console.heard(300)
    assert code == 0, written
    drop, errors = "echo 3 >/proc/sys/vm/drop_caches", "dmesg | grep -c 'I/O error' || true"
    read = node.guest(f"{drop}; head -c {WRITTEN_MIB * MIB} /dev/vdb | md5sum; {errors}")
    digest = [word for word in written.split() if len(word) == 32]
    assert digest
    assert digest[-1] in read
    assert read.split()[-1] == "0", "the guest saw an error"


@pytest.mark.parametrize("program", ["qemu-storage-daemon", "nbdkit"])
def test_a_killed_server_of_a_disk_comes_back_behind_the_guest(node: Node, program: str) -> None:
    volume = node.show("volume", "a-data")
    epoch = volume["status"]["attachment"]["epoch"]
    (folder,) = node.root.glob("run/**/qemu-block")
    writes = "dd if=/dev/zero of=/dev/vdb bs=64k count=8 seek=$((n*8)) conv=fsync 2>/dev/null"
    with node.console() as console:
        console.tell(f"n=0; while [ $n -lt 40 ]; do {writes} || exit 1; n=$((n+1)); done")
        mine = [d for d in daemons(program, folder) if volume["meta"]["id"] in " ".join(d.argv)]
        assert len(mine) == 1
        os.kill(mine[0].pid, signal.SIGKILL)
        assert console.heard(240)[1] == 0
    node.until("it runs", lambda: node.power() == "running")
    assert node.show("volume", "a-data")["status"]["attachment"]["epoch"] == epoch
    assert node.guest("dmesg | grep -c 'I/O error' || true").split()[-1] == "0"


def test_snapshots_of_a_running_guest_and_the_way_back(node: Node) -> None:
    node.guest("echo before >/data/x; sync; echo before | dd of=/dev/vdb conv=sync,fsync")
    taken = json.loads(node.trivet("vm", "snapshot", "a", "--snapshot", "s", "-o", "json"))
    assert taken["status"]["phase"] == "ready"
    assert len(taken["status"]["parts"]) == 2
    node.guest("echo after >/data/x; sync; echo after | dd of=/dev/vdb conv=sync,fsync")
    node.trivet("vm", "stop", "a", "--wait", "120")
    for volume in ("a-root", "a-data"):
        node.trivet("volume", "revert", volume, "--snapshot", "s", "--wait", "30")
    node.trivet("vm", "start", "a", "--wait", "240")
    assert node.guest("cat /data/x; head -c 6 /dev/vdb").count("before") == 2
    said = subprocess.run(
        [str(TOP / "trivet"), "volume", "delete", "a-data"],
        capture_output=True,
        text=True,
        check=False,
        env=node.env,
    )
    assert said.returncode == 1
    node.trivet("snapshot", "delete", "s", "--wait", "60")
