"""One node's machine: processes, mounts and a host name of its own, beside others on this one.

Its first process is a small script in new pid, mount, uts and ipc namespaces and the node's
network namespace. It lets go of others' disks, mounts what a machine of its own would have, and
then keeps Trivet's supervisor running, as systemd does elsewhere: the node's start is the
product's own. Killed, that first process takes all others with it in one moment, which is what a
power cut does to them. What they had written to the machine's own file system without a flush is
kept by its kernel, where a power cut would lose it; with disks of the lab's it is not (`disks`).
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from trivet.host import processes
from trivet.host.failure import failed
from trivet.host.processes import ProcessRecord

RECORD = "machine"
BEGIN_S = 10.0
GONE_S = 20.0
PAUSE_ROUNDS = 50

BOOT = """\
while read -r device point rest; do
    case $device in /dev/loop*) umount -l "$point" ;; esac
done </proc/self/mounts
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/netns /run/lock
mkdir -p {root}/cgroup
mount --rbind /sys/fs/cgroup {root}/cgroup
mount -t sysfs sysfs /sys
mount --rbind {root}/cgroup /sys/fs/cgroup
mount --bind {root}/etc/hosts /etc/hosts
hostname {name}
touch {root}/booted
until {supervise}; do sleep 1; done &
while :; do wait; sleep 86400 & done
"""


class MachineSpace:
    """The machine of the node `name`, whose folders are under `root`."""

    def __init__(self, name: str, root: Path, namespace: str, supervise: Sequence[str]) -> None:
        self.name = name
        self._root = root
        self._namespace = namespace
        self._supervise = supervise
        self._records = root / "records"

    @property
    def pid(self) -> int | None:
        """The first process of the node; None: its power is off."""
        record = self._record()
        return record.pid if record is not None else None

    def start(self) -> None:
        """Switch it on; it boots by itself. One that is on stays as it is."""
        if self._record() is not None:
            return
        self.end()
        shutil.rmtree(self._root / "run", ignore_errors=True)
        booted = self._root / "booted"
        booted.unlink(missing_ok=True)
        quoted = shlex.quote(str(self._root))
        script = BOOT.format(root=quoted, name=self.name, supervise=shlex.join(self._supervise))
        with (self._root / "machine.log").open("ab") as output:
            subprocess.run(
                (
                    *("setsid", "--fork", "nsenter", f"--net=/run/netns/{self._namespace}"),
                    *("unshare", "--mount", "--uts", "--pid", "--ipc", "--fork", "--kill-child"),
                    *("--propagation", "slave", "--", "/bin/sh", "-ec", script),
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env=self._environment(),
                check=True,
            )
        deadline = time.monotonic() + BEGIN_S
        while not booted.exists():
            if time.monotonic() > deadline:
                said = (self._root / "machine.log").read_text(errors="replace").strip()
                raise failed(f"{self.name} does not boot: {said[-300:]}")
            time.sleep(0.01)
        (first,) = (record for record in self._all() if _is_first(record.pid))
        processes.save(first, self._records)

    def end(self) -> None:
        """Cut its power; all its processes are gone on return."""
        for record in self._all():
            processes.send(record, signal.SIGKILL)
            if not processes.wait_gone(record, GONE_S):
                raise failed(f"{self.name} does not die (pid {record.pid})")
        processes.forget(RECORD, self._records)

    def pause(self) -> None:
        """Stop all its processes, until none is left that runs."""
        for _ in range(PAUSE_ROUNDS):
            running = [pid for pid in self.pids() if _state(pid) not in ("T", "Z", "X", "")]
            if not running:
                return
            _signal(running, signal.SIGSTOP)
            time.sleep(0.005)
        raise failed(f"{self.name} does not stop: {running}")

    def resume(self) -> None:
        """Let all its processes go on."""
        _signal(self.pids(), signal.SIGCONT)

    @property
    def paused(self) -> bool:
        """Whether none of its processes goes on."""
        states = [_state(pid) for pid in self.pids()]
        return bool(states) and all(state in ("T", "Z", "X", "") for state in states)

    def pids(self) -> list[int]:
        """All its processes but the first, as this machine counts them."""
        first = self.pid
        if first is None:
            return []
        its = _pid_namespace(first)
        return [pid for pid in processes.pids() if pid != first and _pid_namespace(pid) == its]

    def enter(
        self, argv: Sequence[str], env: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """The command line and environment that run a command in the node."""
        pid = self.pid
        if pid is None:
            raise failed(f"{self.name} is off", hint=f"`lab start {self.name}`")
        spaces = ("--mount", "--uts", "--ipc", "--net", "--pid")
        command = ["nsenter", "--target", str(pid), *spaces, "--wd=/", "--", *argv]
        return command, {**os.environ, **self._environment(), **env}

    def _record(self) -> ProcessRecord | None:
        record = processes.load(RECORD, self._records)
        return record if record is not None and processes.alive(record) else None

    def _all(self) -> list[ProcessRecord]:
        """All processes of all lives that are not over, but those in namespaces of the node's
        own: the first is there also where the start was cut before it was recorded."""
        found = {record.pid: record for record in (self._record(),) if record is not None}
        if Path("/run/netns", self._namespace).exists():
            told = subprocess.run(
                ("ip", "netns", "pids", self._namespace),
                capture_output=True,
                text=True,
                check=False,
            )
            for pid in map(int, told.stdout.split()):
                if (record := processes.record_of(RECORD, pid)) is not None:
                    found[pid] = record
        return sorted(found.values(), key=lambda record: (not _is_first(record.pid), record.pid))

    def _environment(self) -> dict[str, str]:
        return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def _is_first(pid: int) -> bool:
    """Whether a process is the first of a pid namespace below this machine's."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    numbers = next(line.split()[1:] for line in lines if line.startswith("NSpid:"))
    return len(numbers) > 1 and numbers[-1] == "1"


def _pid_namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        record = processes.record_of(RECORD, pid)
        if record is not None:
            processes.send(record, number)
