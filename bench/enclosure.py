"""Where another product's daemons run for a comparison: namespaces of their own.

They have what they need of the machine's folders for themselves (`private` ones are empty and in
memory), the network is a loopback of their own with one address that is not a loopback's (some
refuse those), and all processes end with the first one: whatever they started, nothing is left.
Packages are installed by Debian's own client, and none of their services starts.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.fio import Pids
from bench.measure import say

ADDRESS = "192.0.2.1"
"""Of the range that is for documentation: it is nobody's."""
NAMESPACES = ("--mount", "--pid", "--net", "--uts")
READY_S = 60.0
COMMAND_TIMEOUT_S = 120.0
POLICY = Path("/usr/sbin/policy-rc.d")
DENY = "#!/bin/sh\nexit 101\n"


class Enclosure:
    """Namespaces; `within` before a command runs it there."""

    def __init__(self, first: subprocess.Popen[bytes], log: Path) -> None:
        self._log = log
        self._first = _only_child(first.pid)
        self._namespace = os.readlink(f"/proc/{self._first}/ns/pid")

    @property
    def within(self) -> tuple[str, ...]:
        """What comes before a command."""
        return ("nsenter", f"--target={self._first}", *NAMESPACES, "--")

    def attempt(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A command, and how it ended."""
        return subprocess.run(
            (*self.within, *argv),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )

    def run(self, *argv: str) -> str:
        """A command that must succeed; its output."""
        done = self.attempt(*argv)
        if done.returncode:
            sys.exit(f"{shlex.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def start(self, *argv: str) -> None:
        """A command that goes on; it ends with the enclosure."""
        with self._log.open("ab") as log:
            subprocess.Popen(
                (*self.within, *argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, what: str, ready: Callable[[], bool]) -> None:
        """Until something is so."""
        deadline = time.monotonic() + READY_S
        while not ready():
            if time.monotonic() > deadline:
                sys.exit(
                    f"{what} was not ready in {READY_S:.0f} s; it said at last:\n{self.said()}"
                )
            time.sleep(0.2)

    def said(self) -> str:
        """The end of what the daemons said."""
        return self._log.read_text(errors="replace")[-2000:] if self._log.exists() else ""

    def succeeds(self, *argv: str) -> bool:
        """Whether a command succeeds."""
        return self.attempt(*argv).returncode == 0

    def pids(self) -> Pids:
        """The processes within, by their names."""
        found: dict[str, list[int]] = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    inside = os.readlink(f"/proc/{entry.name}/ns/pid") == self._namespace
                    name = Path(f"/proc/{entry.name}/comm").read_text().strip()
                except OSError:
                    continue
                if inside:
                    found.setdefault(name, []).append(int(entry.name))
        return found


@contextmanager
def enclosure(log: Path, private: Sequence[str]) -> Iterator[Enclosure]:
    """One whose `private` folders are its own."""
    lines = [
        "set -e",
        "mount --make-rprivate /",
        "mount -t proc proc /proc",
        f"ip address add {ADDRESS}/32 dev lo",
        "ip link set lo up",
    ]
    for folder in private:
        lines.append(f"mkdir -p {folder} && mount -t tmpfs tmpfs {folder}")
    lines += ["exec tail -f /dev/null"]
    first = subprocess.Popen(
        ("unshare", *NAMESPACES, "--fork", "--kill-child", "sh", "-c", "\n".join(lines)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_tail(first)
        yield Enclosure(first, log)
    finally:
        first.kill()
        first.wait()


def _wait_for_tail(first: subprocess.Popen[bytes]) -> None:
    """Until all is mounted: the shell has become its last command."""
    deadline = time.monotonic() + READY_S
    while first.poll() is None and time.monotonic() < deadline:
        child = _only_child(first.pid)
        if child and Path(f"/proc/{child}/comm").read_text().strip() == "tail":
            return
        time.sleep(0.02)
    sys.exit("no namespaces of its own could be made for the peer")


def _only_child(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else 0


def install(*packages: str) -> None:
    """Install what is not there, without starting any service of it."""
    asked = ("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages)
    there = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
    missing = [name for name in packages if f"{name} installed" not in there]
    if not missing:
        return
    say(f"installing {', '.join(missing)}")
    denied = not POLICY.exists()
    if denied:
        POLICY.write_text(DENY)
        POLICY.chmod(0o755)
    try:
        for argv in (("update",), ("install", "-y", "--no-install-recommends", *missing)):
            done = subprocess.run(
                ("apt-get", "-q", *argv),
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            sys.exit(
                f"apt-get could not install {', '.join(missing)}: {done.stderr.strip()[-500:]}"
            )
    finally:
        if denied:
            POLICY.unlink()
