"""The lab's disks: real block devices of the kernel that can be made to fail while in use.

A disk is a loop device over a file that FUSE serves (`nbdfuse`) from a server with faults in it
(`nbdkit` with its error and pause filters), over a sparse file that holds the data:

    XFS of a pool  ->  /dev/loopN  ->  nbdfuse  ->  nbdkit (error, pause)  ->  d1.img

so that a fault is what the kernel would see of bad hardware: EIO for the file system above, or
requests that don't come back. Nothing is cached between the file system and the data (the loop
device does direct I/O), so a node whose power is cut loses what its file systems had not written.
The disk's own memory is the machine's page cache, which no cut of a node loses: a disk that lies
about flushes is not imitated.

The disks belong to the machine, not to a node: they outlive its power. Whether a disk is out of
its node is whether the node's folder of links has it.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from trivet.contracts.errors import NOT_FOUND, Refused
from trivet.contracts.model import GIB
from trivet.host import processes
from trivet.host.failure import failed
from trivet.host.layout import Layout
from trivet.testing.lab.plan import LabPlan

SIZE_BYTES = 12 * GIB
THREADS = 8
READY_S = 10.0
LOOK_S = 0.01


@dataclass(frozen=True)
class Disk:
    """One disk: its node and its name there (`d1`), which is its serial number."""

    node: str
    name: str
    ssd: bool
    links: Path
    data: Path
    run: Path

    @property
    def served(self) -> Path:
        """The file that the loop device is over."""
        return self.run / "m" / "nbd"

    @property
    def failing(self) -> Path:
        """While this file is there, every request fails."""
        return self.run / "failing"

    @property
    def control(self) -> Path:
        """The socket by which requests are held and let go."""
        return self.run / "control"

    @property
    def link(self) -> Path:
        """By which the node has the disk."""
        return self.links / self.name


def disks_of(plan: LabPlan, node: str) -> tuple[Disk, ...]:
    """The disks of a node; solid-state ones come first."""
    base = plan.base
    return tuple(
        Disk(
            node,
            f"d{number}",
            ssd=number <= plan.ssd,
            links=links_of(plan.layout(node)),
            data=base.state / "disks" / f"{node}-d{number}.img",
            run=base.run / "disks" / f"{node}-d{number}",
        )
        for number in range(1, (plan.disks if node in plan.workers else 0) + 1)
    )


def links_of(layout: Layout) -> Path:
    """The folder by which a node has its disks."""
    return layout.root / "disks"


def disk_of(plan: LabPlan, node: str, named: str) -> Disk:
    """The disk that a caller means: `d2`, or `2`. Raises `Refused(NOT_FOUND)`."""
    wanted = f"d{named}" if named.isdigit() else named
    there = disks_of(plan, node)
    for disk in there:
        if disk.name == wanted:
            return disk
    hint = f"there are {', '.join(d.name for d in there) or 'none: `lab up --disks 3`'}"
    raise Refused(NOT_FOUND, f"{node} has no disk {named}", hint=hint)


def attach(disk: Disk) -> None:
    """Make the disk and put it into its node; one that is there stays as it is."""
    if _device(disk) is not None:
        return
    _serve(disk)
    loop = _run("losetup", "--find", "--show", "--direct-io=on", str(disk.served)).strip()
    kind = Path("/sys/block", Path(loop).name, "queue/rotational")
    kind.write_text("0" if disk.ssd else "1")
    put_in(disk)


@contextmanager
def without_power(disks: Sequence[Disk]) -> Iterator[None]:
    """While the block runs, in which the node ends, nothing more is written to its disks."""
    there = [disk for disk in disks if _device(disk) is not None]
    well = [disk for disk in there if not disk.failing.exists()]
    for disk in there:
        fail(disk)
        _stop_slowing(disk)
        _control(disk, b"r")  # what was held fails now: it must not outlive the node
    yield
    for disk in there:
        _until(partial(_unused, disk), f"{disk.node} {disk.name} is still in use")
    for disk in well:
        disk.failing.unlink(missing_ok=True)


def detach(disk: Disk) -> None:
    """Take the disk away; what it holds stays. Its node must be off."""
    disk.link.unlink(missing_ok=True)
    if (device := _device(disk)) is not None:
        _run("losetup", "--detach", device)
    _until(lambda: _device(disk) is None, f"{disk.node} {disk.name} is still in use")
    if os.path.ismount(disk.run / "m"):
        _run("umount", "--lazy", str(disk.run / "m"))
    for record in processes.load_all(disk.run):
        processes.end(record, grace_s=2.0)
        processes.forget(record.name, disk.run)


# --- faults --------------------------------------------------------------------------------


def fail(disk: Disk) -> None:
    """Every request fails from now on."""
    disk.failing.touch()


def stick(disk: Disk) -> None:
    """No request comes back from now on."""
    _stop_slowing(disk)
    _control(disk, b"p")


def slow(disk: Disk, milliseconds: int) -> None:
    """Requests are held until the next of moments that are `milliseconds` apart."""
    _stop_slowing(disk)
    script, pid = str(Path(__file__).with_name("slow_disk.py")), disk.run / "slow.pid"
    pid.unlink(missing_ok=True)
    _begin(
        disk,
        "slow",
        "/usr/bin/python3",
        "-I",
        script,
        str(disk.control),
        str(milliseconds),
        str(pid),
    )
    _keep(disk, "slow", pid)


def corrupt(disk: Disk, count: int, seed: int | None = None) -> list[int]:
    """Flip a bit in each of `count` bytes of what the disk holds, behind everybody's back; where
    they are on the disk. The same seed finds the same bytes of the same content."""
    chosen = random.Random(seed)
    with disk.data.open("r+b") as file:
        ranges = _extents(file.fileno(), disk.data.stat().st_size)
        total = sum(end - start for start, end in ranges)
        if total < count:
            raise Refused(NOT_FOUND, f"{disk.node} {disk.name} holds {total} bytes only")
        places = sorted(_place(ranges, at) for at in chosen.sample(range(total), count))
        for place in places:
            (byte,) = os.pread(file.fileno(), 1, place)
            os.pwrite(file.fileno(), bytes((byte ^ (1 << chosen.randrange(8)),)), place)
    return places


def pull(disk: Disk) -> None:
    """Pull the disk out of its node: requests fail, and it is there no more."""
    fail(disk)
    disk.link.unlink(missing_ok=True)


def put_in(disk: Disk) -> None:
    """Put a disk back, or make one well again: every fault but flipped bits is over."""
    _stop_slowing(disk)
    disk.failing.unlink(missing_ok=True)
    _control(disk, b"r")
    device = _device(disk)
    if device is None:
        raise failed(f"{disk.node} {disk.name} is not there", hint=f"`lab start {disk.node}`")
    disk.links.mkdir(parents=True, exist_ok=True)
    fresh = disk.links / f".{disk.name}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(device)
    fresh.replace(disk.link)


def state(disk: Disk) -> str:
    """How the disk is, in a word or two."""
    if _device(disk) is None:
        return "off"
    if not disk.link.is_symlink():
        return "pulled"
    if disk.failing.exists():
        return "fails"
    return "slow" if processes.load("slow", disk.run) else "well"


# --- inside --------------------------------------------------------------------------------


def _serve(disk: Disk) -> None:
    """Serve the disk's data as a file, through a server that can fail."""
    (disk.run / "m").mkdir(parents=True, exist_ok=True)
    disk.failing.unlink(missing_ok=True)
    disk.data.parent.mkdir(parents=True, exist_ok=True)
    with disk.data.open("ab") as file:
        file.truncate(max(SIZE_BYTES, file.tell()))
    server, pid = disk.run / "socket", disk.run / "pid"
    for stale in (server, disk.control, pid):
        stale.unlink(missing_ok=True)
    faults = ("--filter=pause", "--filter=error")  # what was held may fail then
    told = ("error=EIO", "error-rate=100%", f"error-file={disk.failing}")
    serving = ("nbdkit", "--unix", str(server), "--pidfile", str(pid), "--threads", str(THREADS))
    _run(*serving, *faults, "file", f"file={disk.data}", *told, f"pause-control={disk.control}")
    _keep(disk, "nbdkit", pid)
    _begin(disk, "nbdfuse", "nbdfuse", str(disk.run / "m"), "--unix", str(server))
    _until(disk.served.exists, f"{disk.node} {disk.name} is not served")


def _begin(disk: Disk, name: str, *argv: str) -> None:
    """Start a process that outlives us."""
    with (disk.run / f"{name}.log").open("ab") as log:
        subprocess.run(
            ("setsid", "--fork", *argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            check=True,
        )


def _keep(disk: Disk, name: str, pid: Path) -> None:
    """Record the process whose number is in a file, once it is."""
    written = lambda: pid.exists() and pid.read_text().endswith("\n")  # noqa: E731
    _until(written, f"{name} of {disk.node} {disk.name} does not begin")
    if (record := processes.record_of(name, int(pid.read_text()))) is not None:
        processes.save(record, disk.run)


def _device(disk: Disk) -> str | None:
    """The loop device over the disk, if it has one."""
    told = json.loads(_run("losetup", "--json", "--list", "--output", "NAME,BACK-FILE") or "{}")
    for device in told.get("loopdevices", ()):
        if device["back-file"] == str(disk.served):
            return str(device["name"])
    return None


def _unused(disk: Disk) -> bool:
    """Whether no file system is on the disk."""
    device = _device(disk)
    if device is None:
        return True
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    except OSError:
        return False
    return True


def _control(disk: Disk, word: bytes) -> None:
    """Say a word to the pause filter, which hears one at a time: not while the disk is slowed."""
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(READY_S)
        line.connect(str(disk.control))
        line.sendall(word)
        line.recv(1)


def _stop_slowing(disk: Disk) -> None:
    if (record := processes.load("slow", disk.run)) is not None:
        processes.end(record, grace_s=5.0)
        processes.forget("slow", disk.run)


def _extents(descriptor: int, size: int) -> list[tuple[int, int]]:
    """Where a sparse file holds something."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # nothing from here on
            break
        at = os.lseek(descriptor, start, os.SEEK_HOLE)
        found.append((start, at))
    return found


def _place(ranges: Sequence[tuple[int, int]], at: int) -> int:
    """The offset of the byte number `at` of those in the ranges."""
    for start, end in ranges:
        if at < end - start:
            return start + at
        at -= end - start
    raise IndexError(at)


def _until(holds: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + READY_S
    while not holds():
        if time.monotonic() > deadline:
            raise failed(otherwise)
        time.sleep(LOOK_S)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise failed(f"{' '.join(argv[:3])}: {done.stderr.strip()}")
    return done.stdout
