"""Checks of space: on the file systems that Trivet writes to, and for the bus's store.

Too little is less than a share of the file system, within bounds in bytes: five per cent of a
small one is nothing, and of a large one a lot. Shares are told in steps, since what is told is
kept.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, ClassVar

from trivet.contracts.compute.node_check import CheckResult, NodeCheck
from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import GIB, Model

INODES_LEAST = 0.01


class SpaceConfig(Model):
    """`folders` to look at; too little is less than `share` of a file system's size, but at
    least `least_bytes` and at most `most_bytes`."""

    folders: tuple[Path, ...] = (Path("/var/lib/trivet"),)
    share: float = 0.05
    least_bytes: int = GIB
    most_bytes: int = 10 * GIB


def wanted_bytes(size: int, config: SpaceConfig) -> int:
    """How much must be free on a file system of that size."""
    share = min(int(config.share * size), config.most_bytes)
    return min(max(config.least_bytes, share), size // 2)


def problem(folder: Path, config: SpaceConfig) -> tuple[str, str]:
    """What is wrong with the file system of a folder ('' nothing), and how it is."""
    there = next(p for p in (folder, *folder.parents) if p.exists())
    stat = os.statvfs(there)
    size, free = stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize
    detail = f"{free / GIB:.1f} of {size / GIB:.1f} GiB free at {folder}"
    if free < wanted_bytes(size, config):
        return f"less than {_step(free)} are left at {folder}", detail
    if stat.f_files and stat.f_favail < INODES_LEAST * stat.f_files:
        return f"hardly any files can be made any more at {folder}", detail
    return "", detail


def _step(free: int) -> str:
    """An upper bound of the free space, in steps of two."""
    step = 64 * 1024**2
    while step <= free:
        step *= 2
    return f"{step / GIB:g} GiB" if step >= GIB else f"{step >> 20} MiB"


def size_of(folder: Path) -> int:
    """Bytes on disk below a folder; what goes away meanwhile is not counted."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
            except OSError:
                continue
    return total


class DiskSpace:
    """Whether there is room on the file systems that Trivet writes to."""

    name: ClassVar[str] = "disk-space"
    Config: ClassVar[type[Model]] = SpaceConfig

    def __init__(self, context: DriverContext, config: Any) -> None:
        self._config: SpaceConfig = config

    @classmethod
    async def probe(cls) -> Probe:
        """Works anywhere."""
        return Probe(usable=True, reason="looks at file systems")

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def look(self) -> tuple[CheckResult, ...]:
        """One answer for all folders."""
        found = [problem(folder, self._config) for folder in self._config.folders]
        bad = "; ".join(dict.fromkeys(told for told, _ in found if told))
        detail = "; ".join(dict.fromkeys(told for _, told in found))
        reason = "TooLittle" if bad else "Enough"
        return (
            CheckResult(type="DiskSpace", ok=not bad, reason=reason, message=bad, detail=detail),
        )


class BusStoreConfig(SpaceConfig):
    """`folders`: the bus server's store, where it is on this node."""

    folders: tuple[Path, ...] = (Path("/var/lib/trivet/nats"),)
    share: float = 0.10


class BusStore:
    """Whether the bus's store has room to grow; no answer on nodes without one."""

    name: ClassVar[str] = "bus-store"
    Config: ClassVar[type[Model]] = BusStoreConfig

    def __init__(self, context: DriverContext, config: Any) -> None:
        self._config: BusStoreConfig = config

    @classmethod
    async def probe(cls) -> Probe:
        """Works anywhere."""
        return Probe(usable=True, reason="looks at the bus's files, where they are on this node")

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def look(self) -> tuple[CheckResult, ...]:
        """One answer for each store."""
        here = [folder for folder in self._config.folders if folder.is_dir()]
        return tuple([await self._look_at(folder) for folder in here])

    async def _look_at(self, folder: Path) -> CheckResult:
        used = await asyncio.to_thread(size_of, folder)
        bad, detail = problem(folder, self._config)
        return CheckResult(
            type="BusStore",
            ok=not bad,
            reason="NearlyFull" if bad else "Enough",
            message=f"the bus's store: {bad}" if bad else "",
            detail=f"takes {used / 1024**2:.0f} MiB; {detail}",
        )


@hookimpl
def trivet_node_checks() -> list[type[NodeCheck]]:
    """Space for files, and for the bus."""
    return [DiskSpace, BusStore]
