"""Processes that are ours for certain: known by pid and start time, never by a name.

A pid alone may be somebody else's by now. A record holds the pid, the kernel's start time of the
process and the boot it belongs to; only what agrees in all three is signalled, through a pidfd,
so that nothing can slip in between the look and the signal.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class ProcessRecord:
    """One process. `started` is field 22 of /proc/<pid>/stat (clock ticks since boot)."""

    name: str
    pid: int
    started: int
    boot: str
    version: str = ""


def start_time(stat: str) -> int:
    """The start time in the text of /proc/<pid>/stat; the command in it may hold anything."""
    return int(stat.rpartition(")")[2].split()[19])


def record_of(name: str, pid: int, version: str = "") -> ProcessRecord | None:
    """A record of the process that now has `pid`; None where there is none (or a zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if stat.rpartition(")")[2].split()[0] in ("Z", "X"):
        return None
    return ProcessRecord(name, pid, start_time(stat), BOOT_ID.read_text().strip(), version)


def alive(record: ProcessRecord) -> bool:
    """Whether the very process of the record runs."""
    now = record_of(record.name, record.pid, record.version)
    return now == record


def save(record: ProcessRecord, folder: Path) -> None:
    """Keep a record in `folder`, for whoever comes after us."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{record.name}.new"
    partial.write_text(json.dumps(asdict(record)))
    partial.replace(folder / f"{record.name}.json")


def load(name: str, folder: Path) -> ProcessRecord | None:
    """The kept record of that name; None where there is none that can be read."""
    try:
        return ProcessRecord(**json.loads((folder / f"{name}.json").read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def load_all(folder: Path) -> list[ProcessRecord]:
    """All records in `folder`."""
    names = sorted(path.stem for path in folder.glob("*.json")) if folder.is_dir() else []
    return [record for name in names if (record := load(name, folder)) is not None]


def forget(name: str, folder: Path) -> None:
    """Drop a record."""
    (folder / f"{name}.json").unlink(missing_ok=True)


def send(record: ProcessRecord, number: signal.Signals) -> bool:
    """Signal the process of the record; whether it was there."""
    try:
        descriptor = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return False
    try:
        if not alive(record):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def wait_gone(record: ProcessRecord, timeout_s: float) -> bool:
    """Wait for the process of the record to end; whether it has."""
    try:
        descriptor = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return True
    try:
        if not alive(record):
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(max(0, int(timeout_s * 1000))))
    finally:
        os.close(descriptor)


def end(record: ProcessRecord, grace_s: float = 10.0) -> None:
    """Ask the process to end, and after `grace_s` end it; gone already is fine."""
    deadline = time.monotonic() + grace_s
    if not send(record, signal.SIGTERM):
        return
    if wait_gone(record, deadline - time.monotonic()):
        return
    send(record, signal.SIGKILL)
    wait_gone(record, 5.0)


def arguments(pid: int) -> list[str]:
    """The command line of a process; empty for one that is gone or the kernel's own."""
    return _strings(Path(f"/proc/{pid}/cmdline"))


def environment(pid: int) -> list[str]:
    """The environment that a process was started with; empty where it can't be read."""
    return _strings(Path(f"/proc/{pid}/environ"))


def _strings(path: Path) -> list[str]:
    try:
        return path.read_bytes().decode(errors="replace").split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def program(pid: int) -> str:
    """The path of the program that a process runs; empty where it can't be told."""
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
    except OSError:
        return ""


def in_our_root(pid: int) -> bool:
    """Whether a process sees the file system that we see. One in a container or a chroot does
    not: its paths look like ours and are others."""
    try:
        its, ours = os.stat(f"/proc/{pid}/root/."), os.stat("/")
    except OSError:
        return False
    return (its.st_dev, its.st_ino) == (ours.st_dev, ours.st_ino)


def pids() -> list[int]:
    """All processes of this pid namespace."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
