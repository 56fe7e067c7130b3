"""What whole disks this node has, from sysfs, and what is on them, from their own bytes.

The one mistake that matters is to call a disk blank that is not, so blank is what remains when
everything else was excluded: no partition, nothing above it (LVM, RAID, dm), not mounted, no
swap, no signature that `blkid` knows, and the first and last MiB are zeros. Whatever can't be
found out is 'unknown'. Only reads; loop devices, RAM disks, network block devices, optical
drives and device-mapper are not disks that can be given a role.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import ClassVar

from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import TrivetError
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import MIB, Model
from trivet.contracts.storage.disk import DiskFacts
from trivet.contracts.storage.inspector import DiskInspector, DiskReading
from trivet.plugins.storage.disk_probe import DiskProbes
from trivet.plugins.storage.node_process import attempt

LEFT_OUT = ("loop", "ram", "zram", "nbd", "dm-", "md", "sr", "fd", "rbd", "drbd")
SECTOR = 512
NOTHING_FOUND = 2
PROBE_TIMEOUT_S = 20.0
SERIAL_FILES = ("device/serial", "serial", "wwid", "device/wwid", "device/vpd_pg80")


class SysfsDisksConfig(Model):
    """Where sysfs, the device nodes and procfs are (other places serve tests). `links`: a folder
    of links to block devices, which are this node's disks, whatever they are, and no others;
    a link's name is the disk's serial number. It is for nodes that share a machine."""

    links: Path | None = None
    sys_root: Path = Path("/sys")
    dev_root: Path = Path("/dev")
    proc_root: Path = Path("/proc")


class SysfsDisks:
    """Looks at the disks of this node."""

    name: ClassVar[str] = "sysfs-disks"
    Config: ClassVar[type[Model]] = SysfsDisksConfig

    def __init__(self, context: DriverContext, config: SysfsDisksConfig) -> None:
        self._node = context.node
        self._block = config.sys_root / "block"
        self._dev = config.dev_root
        self._proc = config.proc_root
        self._links = config.links
        self._probes = DiskProbes(self._block, self._dev)

    @classmethod
    async def probe(cls) -> Probe:
        """Whether sysfs and blkid are there."""
        if shutil.which("blkid") is None:
            return Probe(usable=False, reason="not installed: blkid")
        return Probe(usable=True, reason="disks are seen in sysfs", score=50)

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to let go."""

    async def disks(self) -> tuple[DiskFacts, ...]:
        """All whole disks, in order of their device."""
        found = await asyncio.to_thread(self._linked if self._links else self._found)
        return tuple([await self._facts(name, serial) for name, serial in found])

    def _linked(self) -> list[tuple[str, str]]:
        """The devices that the folder of links names, each with its serial number."""
        assert self._links is not None
        links = sorted(self._links.iterdir()) if self._links.is_dir() else []
        named = [(link.resolve().name, link.name) for link in links if link.name[0] != "."]
        return [(name, serial) for name, serial in named if self._size(name) > 0]

    def _found(self) -> list[tuple[str, str]]:
        """All that are disks by their names, each with its serial number."""
        return [(name, self._serial(name)) for name in self._names()]

    async def read(self, device: str, within_s: float) -> DiskReading:
        """How a disk does; one that nothing links to any more was pulled."""
        if self._links is not None:
            linked = await asyncio.to_thread(self._linked)
            if all(name != Path(device).name for name, _ in linked):
                return DiskReading(present=False, answered=False)
        return await self._probes.read(device, within_s)

    def _names(self) -> list[str]:
        if not self._block.is_dir():
            return []
        names = sorted(p.name for p in self._block.iterdir())
        return [n for n in names if not n.startswith(LEFT_OUT) and self._size(n) > 0]

    async def _facts(self, name: str, serial: str) -> DiskFacts:
        folder = self._block / name
        rotational = _text(folder / "queue/rotational")
        return DiskFacts(
            device=f"/dev/{name}",
            serial=serial,
            model=_text(folder / "device/model"),
            size_bytes=self._size(name),
            rotational={"0": False, "1": True}.get(rotational),
            holds=await self._holds(name),
        )

    def _size(self, name: str) -> int:
        text = _text(self._block / name / "size")
        return int(text) * SECTOR if text.isdigit() else 0

    def _serial(self, name: str) -> str:
        """What tells the disk for ever; where it has no serial, its name on this node, which
        is only as lasting as the order of the disks."""
        for file in SERIAL_FILES:
            text = _text(self._block / name / file)
            if text:
                return "".join(c for c in text if c.isprintable()).strip()
        return f"{self._node}-{name}"

    async def _holds(self, name: str) -> str:
        """What is on the disk; '' only where it was proven blank."""
        used = await asyncio.to_thread(self._use, name)
        if used:
            return used
        device = str(self._dev / name)
        try:
            found = await attempt("blkid", "-p", "-o", "export", device, timeout_s=PROBE_TIMEOUT_S)
        except TrivetError:
            return "unknown"
        values = dict(line.split("=", 1) for line in found.stdout.splitlines() if "=" in line)
        what = values.get("TYPE") or values.get("PTTYPE")
        if what:
            return f"{what} {values['LABEL']}" if "LABEL" in values else what
        if found.code != NOTHING_FOUND or found.stdout.strip():
            return "unknown"
        blank = await asyncio.to_thread(_zeros_at_both_ends, Path(device), self._size(name))
        return "" if blank else "unknown"

    def _use(self, name: str) -> str:
        """Who uses the disk, as far as the kernel tells."""
        folder = self._block / name
        mounted = self._mounted(_text(folder / "dev"))
        if mounted:
            return f"mounted on {mounted}"
        partitions = sorted(p.parent.name for p in folder.glob("*/partition"))
        if partitions:
            return f"partitions {' '.join(partitions)}"
        holders = sorted(p.name for p in (folder / "holders").glob("*"))
        if holders:
            return f"used by {' '.join(holders)}"
        swaps = (line.split()[0] for line in _text(self._proc / "swaps").splitlines()[1:])
        return "swap" if f"/dev/{name}" in swaps else ""

    def _mounted(self, number: str) -> str:
        """Where a device number is mounted."""
        for line in _text(self._proc / "self/mountinfo").splitlines():
            fields = line.split()
            if len(fields) > 4 and fields[2] == number:
                return fields[4]
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip().strip("\0")
    except OSError:
        return ""


def _zeros_at_both_ends(device: Path, size_bytes: int) -> bool:
    """Whether the first and the last MiB are zeros; what can't be read is not."""
    try:
        handle = os.open(device, os.O_RDONLY)
    except OSError:
        return False
    try:
        for at in (0, max(0, size_bytes - MIB)):
            data = os.pread(handle, MIB, at)
            if not data or data.count(0) != len(data):
                return False
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


@hookimpl
def trivet_disk_inspectors() -> list[type[DiskInspector]]:
    """This module's driver."""
    return [SysfsDisks]
