"""A snapshot on disk: for each volume a file that shares its blocks, and the record beside it.

All volumes are cut at one point by stopping the servers of their replicas (SIGSTOP) for the
moment in which the files are cloned: a write that was answered before the stop is in its file,
and one that waits for an answer that depends on nothing after it. What is dirty is written out
before, so that the moment is short; and whatever happens, a timer lets the servers run on after
`FREEZE_S`: a snapshot that was not finished by then is none. Everything here blocks and is called
in a thread.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from trivet.contracts.errors import NOT_SUPPORTED, TIMEOUT, Refused, Retry
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.storage.engine import SnapshotRecord
from trivet.plugins.storage.node_process import Daemon, let_run, stopped
from trivet.plugins.storage.replica_file import clone, sync_folder, write_durably

FREEZE_S = 2.0
LOOK_S = 0.001


class SnapshotSidecar(Model):
    """What is known of a volume in a snapshot."""

    snapshot: ResourceId
    volume: ResourceId
    pool: ResourceId
    size_bytes: int
    complete: bool = False

    def record(self, folder: Path) -> SnapshotRecord:
        """As the contract shows it."""
        used = 0
        with suppress(FileNotFoundError):
            used = snapshot_data(folder, self.snapshot, self.volume).stat().st_blocks * 512
        return SnapshotRecord(**dict(self), used_bytes=used)


def snapshot_data(folder: Path, snapshot: ResourceId, volume: ResourceId) -> Path:
    """Where a volume's bytes in a snapshot lie."""
    return folder / f"{snapshot}.{volume}.raw"


def read_snapshots(folder: Path) -> list[SnapshotSidecar]:
    """All records of a folder."""
    paths = sorted(folder.glob("*.json"))
    return [SnapshotSidecar.model_validate_json(p.read_bytes()) for p in paths]


def write_snapshot(folder: Path, sidecar: SnapshotSidecar) -> None:
    """Write a record."""
    path = snapshot_data(folder, sidecar.snapshot, sidecar.volume).with_suffix(".json")
    write_durably(path, sidecar.model_dump_json().encode())


def remove_snapshot(folder: Path, snapshot: ResourceId, volume: ResourceId) -> None:
    """Remove the bytes, then the record."""
    data = snapshot_data(folder, snapshot, volume)
    data.unlink(missing_ok=True)
    sync_folder(folder)
    data.with_suffix(".json").unlink(missing_ok=True)
    sync_folder(folder)


def cut(files: Sequence[tuple[Path, Path]], servers: Sequence[Daemon]) -> None:
    """Clone each `(source, target)` at one point in time, at which none of `servers` works.

    Raises `Refused(NOT_SUPPORTED)` where blocks can't be shared, `Retry` where it took too long.
    """
    for source, target in files:
        target.unlink(missing_ok=True)
        with source.open("rb") as file:
            os.fdatasync(file.fileno())
    with frozen(servers) as still:
        for source, target in files:
            with source.open("rb") as file, target.open("xb") as copy:
                if not clone(file.fileno(), copy.fileno()):
                    raise Refused(NOT_SUPPORTED, "the pool's file system shares no blocks")
        if not still.is_set():
            raise Retry(TIMEOUT, f"the snapshot was not taken within {FREEZE_S:.0f} s")
    for _, target in files:
        with target.open("rb") as file:
            os.fsync(file.fileno())


@contextmanager
def frozen(servers: Sequence[Daemon]) -> Iterator[threading.Event]:
    """Stop these processes for the block, `FREEZE_S` at most; the event is set as long as they
    have not been let run on."""
    still = threading.Event()
    still.set()

    def thaw() -> None:
        still.clear()
        for server in servers:
            let_run(server)

    timer = threading.Timer(FREEZE_S, thaw)
    timer.start()
    try:
        for server in servers:
            _stop(server)
        while still.is_set() and not all(stopped(server) for server in servers):
            time.sleep(LOOK_S)
        yield still
    finally:
        timer.cancel()
        thaw()


def _stop(server: Daemon) -> None:
    with suppress(ProcessLookupError):
        os.kill(server.pid, signal.SIGSTOP)
