"""How a disk does: a small read past the page cache, the kernel's own counters, and SMART.

A read of a disk that hangs can't be ended, so each disk has at most one: while it hangs the disk
counts as one that does not answer, and nothing more is started on it. SMART is asked through
smartctl where that is installed, rarely, since some disks are woken or held up by it.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import random
import shutil
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from trivet.contracts.errors import TrivetError
from trivet.contracts.storage.inspector import DiskReading
from trivet.plugins.storage.node_process import attempt

READ_BYTES = 4096
HANGS_LOOK_S = 0.05
SMART_EVERY_S = 1800.0
SMART_TIMEOUT_S = 20.0
SECTOR = 512
READS, READ_MS, WRITES, WRITE_MS = 0, 3, 4, 7
"""Fields of /sys/block/<disk>/stat."""


@dataclass
class _Known:
    """What was seen of a disk by the last reading."""

    hanging: Future[float] | None = None
    hanging_since: float = 0.0
    requests: int | None = None
    busy_ms: int = 0
    errors: int | None = None
    smart_at: float = float("-inf")
    worn_percent: int = 0
    failing: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class DiskProbes:
    """Reads disks, by device; `block` is /sys/block, `dev` the folder of the device nodes."""

    def __init__(self, block: Path, dev: Path) -> None:
        self._block = block
        self._dev = dev
        self._known: dict[str, _Known] = {}

    async def read(self, device: str, within_s: float) -> DiskReading:
        """One reading."""
        name = Path(device).name
        folder = self._block / name
        if not await asyncio.to_thread(folder.is_dir):
            self._known.pop(name, None)
            return DiskReading(present=False, answered=False)
        known = self._known.setdefault(name, _Known())
        async with known.lock:
            answered, failed, took_ms = await self._probe(name, known, within_s)
            latency_ms = _mean_ms(folder, known)
            errors = _new_errors(folder, known) + failed
            await self._ask_smart(device, known)
        return DiskReading(
            answered=answered,
            failed=failed,
            latency_ms=latency_ms if latency_ms is not None else took_ms,
            errors=errors,
            worn_percent=known.worn_percent,
            failing=known.failing,
        )

    async def _probe(
        self, name: str, known: _Known, within_s: float
    ) -> tuple[bool, bool, float | None]:
        """Whether a read was answered, whether it failed, and how long it took (ms)."""
        if known.hanging is None:
            known.hanging = _in_thread(self._dev / name, self._size(name))
            known.hanging_since = time.monotonic()
        # One that has hung for so long already is not waited for as long again.
        left_s = max(known.hanging_since + within_s - time.monotonic(), HANGS_LOOK_S)
        try:
            took_ms = await asyncio.wait_for(
                asyncio.shield(asyncio.wrap_future(known.hanging)), left_s
            )
        except TimeoutError:
            return False, False, None
        except OSError:
            known.hanging = None
            return True, True, None
        known.hanging = None
        return True, False, took_ms

    def _size(self, name: str) -> int:
        text = _text(self._block / name / "size")
        return int(text) * SECTOR if text.isdigit() else 0

    async def _ask_smart(self, device: str, known: _Known) -> None:
        now = time.monotonic()
        if now - known.smart_at < SMART_EVERY_S or shutil.which("smartctl") is None:
            return
        known.smart_at = now
        try:
            told = await attempt(
                "smartctl", "--json", "--health", "--attributes", device, timeout_s=SMART_TIMEOUT_S
            )
            known.worn_percent, known.failing = smart_words(told.stdout)
        except (TrivetError, ValueError):
            return  # a disk without SMART says nothing of itself


def _in_thread(path: Path, size_bytes: int) -> Future[float]:
    """A read in a thread that ends with the process, whether or not the read ever does."""
    done: Future[float] = Future()

    def act() -> None:
        try:
            done.set_result(_read(path, size_bytes))
        except OSError as error:
            done.set_exception(error)

    Thread(target=act, name=f"probe-{path.name}", daemon=True).start()
    return done


def _read(path: Path, size_bytes: int) -> float:
    """Read a block somewhere, past the page cache where that can be; how long it took (ms)."""
    last = max(size_bytes // READ_BYTES - 1, 0)
    at = random.randint(0, last) * READ_BYTES
    began = time.monotonic()
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        handle = os.open(path, os.O_RDONLY)
    try:
        with mmap.mmap(-1, READ_BYTES) as page:
            os.preadv(handle, [page], at)
    finally:
        os.close(handle)
    return (time.monotonic() - began) * 1000


def _mean_ms(folder: Path, known: _Known) -> float | None:
    """What requests took on average since the last reading, by the kernel's counters."""
    fields = _text(folder / "stat").split()
    if len(fields) <= WRITE_MS:
        return None
    requests = int(fields[READS]) + int(fields[WRITES])
    busy_ms = int(fields[READ_MS]) + int(fields[WRITE_MS])
    before, before_ms = known.requests, known.busy_ms
    known.requests, known.busy_ms = requests, busy_ms
    if before is None or requests <= before:
        return None
    return (busy_ms - before_ms) / (requests - before)


def _new_errors(folder: Path, known: _Known) -> int:
    """How many errors the kernel has counted since the last reading (SCSI and SATA disks)."""
    text = _text(folder / "device/ioerr_cnt")
    try:
        errors = int(text, 16)
    except ValueError:
        return 0
    before, known.errors = known.errors, errors
    return max(errors - before, 0) if before is not None else 0


def smart_words(text: str) -> tuple[int, str]:
    """From smartctl's JSON: percent of its life that an SSD has used, and its word that it fails
    ('': it does not say so). Raises ValueError where it is no such JSON."""
    told = json.loads(text)
    passed = told.get("smart_status", {}).get("passed", True)
    worn = told.get("nvme_smart_health_information_log", {}).get("percentage_used", 0)
    for attribute in told.get("ata_smart_attributes", {}).get("table", ()):
        if attribute.get("name") in ("Wear_Leveling_Count", "Media_Wearout_Indicator"):
            worn = max(worn, 100 - int(attribute.get("value", 100)))
    return int(worn), "" if passed else "SMART says that it is about to fail"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
