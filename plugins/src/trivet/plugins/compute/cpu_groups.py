"""The cgroup in which a node's guests are: weighed and limited beside what else runs there.

One group (libvirt calls it a partition) an instance, named by its prefix, in which libvirt makes
one for each guest and removes it when the guest ends. Both generations of cgroups will do. The
kernel forgets groups when the machine boots, so this one is made before libvirt's daemon starts.
The root of the file system is an argument, so that any machine can be made up in a folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CGROUPS = Path("sys/fs/cgroup")
CPU_SHARES = 1024
WEIGHT_OF_CPU_SHARES = 100
GUESTS_OVER_A_TASK = 2
"""On each processor, guests together weigh that much more than one other task there."""

MAX_SHARES, MAX_WEIGHT = 262144, 10000


@dataclass(frozen=True)
class CpuGroup:
    """The group of an instance's guests: its folder, and whether it is of the second generation."""

    folder: Path
    unified: bool

    @property
    def works(self) -> bool:
        """Whether it is there, and processors can be shared out in it."""
        wanted = ("cpu.weight", "cpu.max") if self.unified else ("cpu.shares", "cpu.cfs_quota_us")
        return all((self.folder / name).exists() for name in wanted)


def group_of(prefix: str, root: Path = Path("/")) -> CpuGroup | None:
    """Where the group of an instance would be; None on a machine whose cgroups have nothing for
    processors, or that has none."""
    base = root / CGROUPS
    if "cpu" in _words(base / "cgroup.controllers"):
        return CpuGroup(base / _name(prefix), unified=True)
    if (base / "cpu/cpu.shares").exists() or (base / "cpu/tasks").exists():
        return CpuGroup(base / "cpu" / _name(prefix), unified=False)
    return None


def make(prefix: str, cpus: int, root: Path = Path("/")) -> str | None:
    """Have the group of an instance, with its weight; why that can't be, or None."""
    group = group_of(prefix, root)
    if group is None:
        return "the kernel offers no cgroup controller for processors"
    try:
        if group.unified:
            (group.folder.parent / "cgroup.subtree_control").write_text("+cpu")
        group.folder.mkdir(exist_ok=True)
        if not group.works:
            return f"{group.folder} has no controller for processors"
        _weigh(group, cpus)
    except OSError as error:
        return f"{group.folder} can't be made: {error.strerror}"
    return None


def _weigh(group: CpuGroup, cpus: int) -> None:
    if group.unified:
        weight = min(WEIGHT_OF_CPU_SHARES * GUESTS_OVER_A_TASK * cpus, MAX_WEIGHT)
        (group.folder / "cpu.weight").write_text(str(weight))
    else:
        shares = min(CPU_SHARES * GUESTS_OVER_A_TASK * cpus, MAX_SHARES)
        (group.folder / "cpu.shares").write_text(str(shares))


def idle_unified(root: Path = Path("/")) -> Path | None:
    """The mount of second-generation cgroups that has nothing for processors, since those of the
    first have that; None: there is none. If all that it has is strange to libvirt (9 at least),
    that can't start guests beside it."""
    mount = root / CGROUPS / "unified"
    has = mount / "cgroup.controllers"
    return mount if has.exists() and "cpu" not in _words(has) else None


def remove(prefix: str, root: Path = Path("/")) -> None:
    """Remove the group of an instance, with what a killed libvirt left in it; what still has
    processes in it stays."""
    group = group_of(prefix, root)
    if group is not None:
        _remove_tree(group.folder)


def forget(prefix: str, domain: str, root: Path = Path("/")) -> None:
    """Remove what was left of a domain's groups: libvirt does it, if it sees the domain end."""
    group = group_of(prefix, root)
    if group is None or not group.folder.is_dir():
        return
    for folder in group.folder.glob(f"*-{domain}.libvirt-qemu"):
        _remove_tree(folder)


def _remove_tree(folder: Path) -> None:
    for path in _folders_inside_first(folder):
        with suppress(OSError):
            path.rmdir()


def _folders_inside_first(folder: Path) -> Iterator[Path]:
    for path, _, _ in os.walk(folder, topdown=False):
        yield Path(path)


def _name(prefix: str) -> str:
    return f"{prefix}.partition"


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
