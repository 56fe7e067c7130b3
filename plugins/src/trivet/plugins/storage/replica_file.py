"""A replica on disk: a raw sparse file, and the record (sidecar) beside it.

The record is written whole, to another name, synced and renamed, so that it is always one of
its versions. A replica whose record says incomplete never held a guest's data: it is made anew.
Everything here blocks and is called in a thread.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trivet.contracts.model import Model, ResourceId
from trivet.contracts.storage.engine import ReplicaRecord, sidecar_path

FICLONE = 0x40049409
COPY_BYTES = 4 * 1024 * 1024
PART_SUFFIX = ".part"


class Sidecar(Model):
    """What is known of a replica. Epochs below `floor` never come back. `made_ns`: when it was
    made; of two of a volume (one on a disk that was away meanwhile) the later is the replica."""

    volume: ResourceId
    pool: ResourceId
    size_bytes: int
    generation: int
    thin: bool = True
    epoch: int = 0
    floor: int = 0
    made_ns: int = 0
    complete: bool = False

    def record(self, folder: Path, serving: int | None) -> ReplicaRecord:
        """The replica as the contract shows it; `used_bytes` counts shared blocks too."""
        used = 0
        with suppress(FileNotFoundError):
            used = data_path(folder, self.volume).stat().st_blocks * 512
        return ReplicaRecord(
            volume=self.volume,
            pool=self.pool,
            size_bytes=self.size_bytes,
            generation=self.generation,
            epoch=self.epoch,
            floor=max(self.epoch, self.floor),
            used_bytes=used,
            serving=serving,
            complete=self.complete,
        )


def data_path(folder: Path, volume: ResourceId) -> Path:
    """Where a replica's bytes lie."""
    return folder / f"{volume}.raw"


def read_sidecars(folder: Path) -> list[Sidecar]:
    """All records of a folder."""
    return [Sidecar.model_validate_json(p.read_bytes()) for p in sorted(folder.glob("*.json"))]


def write_durably(path: Path, data: bytes) -> None:
    """Replace a file by `data`, so that a crash leaves the old or the new one."""
    part = path.with_name(path.name + PART_SUFFIX)
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and removals in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_sidecar(folder: Path, sidecar: Sidecar) -> None:
    """Write a replica's record."""
    write_durably(sidecar_path(folder, sidecar.volume), sidecar.model_dump_json().encode())


def remove_replica(folder: Path, volume: ResourceId) -> None:
    """Remove the bytes, then the record: a cut removal is found by its record and redone."""
    for path in (data_path(folder, volume), _staged(folder, volume)):
        path.unlink(missing_ok=True)
    sync_folder(folder)
    sidecar_path(folder, volume).unlink(missing_ok=True)
    sync_folder(folder)


def make_data(
    folder: Path,
    volume: ResourceId,
    size_bytes: int,
    *,
    thin: bool,
    source: Path | None,
    linked: bool,
    stop: threading.Event,
) -> None:
    """Make a replica's file anew, with the bytes of `source`, and sync it.

    `linked` falls back to a copy where the file system shares no blocks, and where all space is
    to be there from the beginning. Raises OSError, with nothing left but the record.
    """
    path, staged = data_path(folder, volume), _staged(folder, volume)
    for old in (path, staged):
        old.unlink(missing_ok=True)
    try:
        with path.open("xb") as target:
            if source is not None:
                _fill(target.fileno(), source, staged, linked and thin, stop)
            os.ftruncate(target.fileno(), size_bytes)
            if not thin:
                os.posix_fallocate(target.fileno(), 0, size_bytes)
            os.fsync(target.fileno())
        sync_folder(folder)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        staged.unlink(missing_ok=True)


def _fill(target: int, source: Path, staged: Path, linked: bool, stop: threading.Event) -> None:
    """The source's bytes as they are at one moment, though a guest may be writing to it."""
    with source.open("rb") as file:
        if linked and clone(file.fileno(), target):
            return
        with staged.open("xb+") as moment:
            if clone(file.fileno(), moment.fileno()):
                copy(moment.fileno(), target, stop.is_set)
                return
        copy(file.fileno(), target, stop.is_set)


def clone(source: int, target: int) -> bool:
    """Share all blocks of `source` with `target`; false where the file system can't."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY):
            return False
        raise
    return True


def can_clone(folder: Path) -> bool:
    """Whether files in a folder can share blocks, tried out."""
    one, two = folder / f"probe-1{PART_SUFFIX}", folder / f"probe-2{PART_SUFFIX}"
    try:
        with one.open("wb+") as a, two.open("wb+") as b:
            a.write(b"x" * 4096)
            a.flush()
            return clone(a.fileno(), b.fileno())
    finally:
        one.unlink(missing_ok=True)
        two.unlink(missing_ok=True)


def copy(source: int, target: int, stopped: Callable[[], bool]) -> None:
    """Copy what is data, and leave holes holes. (`copy_file_range` would share blocks.)"""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    at = 0
    while at < size:
        try:
            begin = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        at = os.lseek(source, begin, os.SEEK_HOLE)
        _copy_range(source, target, begin, at, stopped)


def _copy_range(
    source: int, target: int, begin: int, end: int, stopped: Callable[[], bool]
) -> None:
    while begin < end:
        if stopped():
            raise InterruptedError(errno.EINTR, "the copy was stopped")
        data = os.pread(source, min(COPY_BYTES, end - begin), begin)
        if not data:
            return
        written = 0
        while written < len(data):
            written += os.pwrite(target, data[written:], begin + written)
        begin += len(data)


def grow_data(folder: Path, volume: ResourceId, size_bytes: int, *, thin: bool) -> None:
    """Make a replica's file larger, durably; full space is found before anything changes."""
    with data_path(folder, volume).open("rb+") as file:
        old = os.fstat(file.fileno()).st_size
        if size_bytes > old:
            try:
                if not thin:
                    os.posix_fallocate(file.fileno(), old, size_bytes - old)
            except OSError:
                os.ftruncate(file.fileno(), old)
                raise
            os.ftruncate(file.fileno(), size_bytes)
            os.fsync(file.fileno())


def replace_data(folder: Path, volume: ResourceId, source: Path, *, thin: bool) -> None:
    """Give a replica's file the content of `source` in one step, and its own size."""
    path, staged = data_path(folder, volume), _staged(folder, volume)
    staged.unlink(missing_ok=True)
    try:
        with staged.open("xb") as target, source.open("rb") as file:
            if not thin or not clone(file.fileno(), target.fileno()):
                copy(file.fileno(), target.fileno(), lambda: False)
            size = path.stat().st_size
            os.ftruncate(target.fileno(), size)
            if not thin:
                os.posix_fallocate(target.fileno(), 0, size)
            os.fsync(target.fileno())
        staged.rename(path)
    finally:
        staged.unlink(missing_ok=True)
    sync_folder(folder)


def _staged(folder: Path, volume: ResourceId) -> Path:
    return folder / f"{volume}.raw{PART_SUFFIX}"
