"""A power cut of a whole node, as far as it can be imitated on one machine; a full disk, too.

The instance lives on a file system of its own, on a loop device over a file. The cut takes a
copy of that file by reflink, in one moment: it holds what the file system had handed to its
device by then, and none of what was still in the page cache above it. Then every process of the
instance is killed, what a reboot takes (namespaces, links, rules, `run`) is taken, and the node
comes back on the copy.

It is a little kinder than a real cut: what was handed to the device without a flush is kept,
where a disk's own cache could lose it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from trivet.host import processes, teardown, traces
from trivet.host.layout import Layout
from trivet.testing.lab.node import until

GROUND_BYTES = 24 << 30
DISK_BYTES = 16 << 30
FILLER = "filler"


class CutGround:
    """A folder, `root`, on a device whose power can be cut. All of it is sparse."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="tv-cut-"))
        self._ground = self._folder / "g"
        self.root = self._folder / "r"
        self._disk = self._ground / "disk"

    def make(self) -> None:
        """Lay the ground (XFS, for the reflink) and the disk (ext4, as a node has it)."""
        self._folder.chmod(0o755)  # the node's own user has its programs there
        for point in (self._ground, self.root):
            point.mkdir()
        backing = self._folder / "ground.xfs"
        _sparse(backing, GROUND_BYTES)
        _run("mkfs.xfs", "-q", "-m", "reflink=1", str(backing))
        _run("mount", "-o", "loop", str(backing), str(self._ground))
        _sparse(self._disk, DISK_BYTES)
        _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", str(self._disk))
        self._mount()

    def cut(self, layout: Layout) -> None:
        """Cut the power of the instance under `root`, and give it back: the disk is as it was
        in that moment, and nothing of the instance runs."""
        after = self._ground / "cut"
        _run("cp", "--reflink=always", str(self._disk), str(after))
        _kill_all(layout)
        left = teardown.take_down(layout, lambda text: None)
        if left:
            raise AssertionError(f"a reboot would have taken {left}")
        _unmount(self.root)
        after.replace(self._disk)
        self._mount()
        shutil.rmtree(layout.run)

    def fill(self) -> None:
        """Use up all space on the disk that is there for others than root."""
        disk = os.statvfs(self.root)
        with (self.root / FILLER).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize)

    def make_room(self) -> None:
        """Give the space back."""
        (self.root / FILLER).unlink()

    def remove(self) -> None:
        """Take it all away; somebody else's mount namespace may hold copies of the mounts, and
        they go with it."""
        for point in (self.root, self._ground):
            if os.path.ismount(point):
                _run("umount", "--lazy", str(point))
        shutil.rmtree(self._folder)

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._disk), str(self.root))


def _kill_all(layout: Layout) -> None:
    """kill -9 every process of the instance; the supervisor first, so that it starts none."""
    found = [pid for pid in processes.pids() if traces.engine_of(layout, pid)]
    supervisor = processes.load("supervisor", layout.processes)
    first = supervisor.pid if supervisor else 0
    for pid in sorted(found, key=lambda pid: pid != first):
        record = processes.record_of("any", pid)
        if record is not None:
            processes.send(record, signal.SIGKILL)
            processes.wait_gone(record, 10)


def _unmount(point: Path) -> None:
    """The loop device below lets go of its file a moment after the last user went."""

    def done() -> bool:
        tried = subprocess.run(("umount", str(point)), capture_output=True, check=False)
        return tried.returncode == 0

    until(f"{point} is free", done, 20)


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.stderr.strip()}")
