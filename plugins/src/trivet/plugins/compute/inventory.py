"""Finds what a node has, by reading /sys and /proc: it changes nothing and runs nothing.

Processors, memory, NUMA cells with their free huge pages, SR-IOV functions and USB devices.
The root of the file system is an argument, so that any machine can be made up in a folder. What
can't be read counts as absent: a node without NUMA has one cell, with all of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trivet.contracts.compute.balloon import HostMemory
from trivet.contracts.compute.node import NumaCell, SriovFunction, UsbDevice

KIB_PER_MIB = 1024


@dataclass(frozen=True)
class HostHardware:
    """The hardware of a node."""

    cpus: int
    cpu_model: str
    memory_mib: int
    cores: tuple[tuple[int, ...], ...]
    cells: tuple[NumaCell, ...]
    sriov: tuple[SriovFunction, ...]
    usb: tuple[UsbDevice, ...]


def find(root: Path = Path("/")) -> HostHardware:
    """The hardware of the machine whose /sys and /proc are under `root`."""
    online = cpu_list(_text(root / "sys/devices/system/cpu/online"))
    memory_mib = _meminfo_mib(_text(root / "proc/meminfo"))
    cells = _cells(root / "sys/devices/system/node")
    if not cells:
        pages = _hugepages(root / "sys/kernel/mm/hugepages")
        cells = (NumaCell(id=0, cpus=online, memory_mib=memory_mib, hugepages=pages),)
    return HostHardware(
        cpus=len(online),
        cpu_model=_cpu_model(_text(root / "proc/cpuinfo")),
        memory_mib=memory_mib,
        cores=_cores(root / "sys/devices/system/cpu", online),
        cells=cells,
        sriov=_sriov(root / "sys/bus/pci/devices"),
        usb=_usb(root / "sys/bus/usb/devices"),
    )


def memory(root: Path = Path("/")) -> HostMemory:
    """The machine's memory now."""
    told = _text(root / "proc/meminfo")
    return HostMemory(
        total_mib=_meminfo_mib(told), available_mib=_meminfo_mib(told, "MemAvailable")
    )


def cpu_list(text: str) -> tuple[int, ...]:
    """The numbers in the kernel's list format: `0-2,5` is 0, 1, 2, 5."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            numbers.extend(range(int(first), int(last or first) + 1))
    return tuple(numbers)


def _cores(folder: Path, online: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The processors that share a core, a core each; one that does not say is a core."""
    siblings = (
        cpu_list(_text(folder / f"cpu{number}/topology/thread_siblings_list")) or (number,)
        for number in online
    )
    return tuple(sorted(set(siblings)))


def _cells(folder: Path) -> tuple[NumaCell, ...]:
    cells = []
    for node in _folders(folder):
        number = node.name.removeprefix("node")
        if not number.isdigit():
            continue
        cells.append(
            NumaCell(
                id=int(number),
                cpus=cpu_list(_text(node / "cpulist")),
                memory_mib=_meminfo_mib(_text(node / "meminfo")),
                hugepages=_hugepages(node / "hugepages"),
            )
        )
    return tuple(sorted(cells, key=lambda cell: cell.id))


def _hugepages(folder: Path) -> dict[int, int]:
    """Free pages by their size in KiB; sizes of which none is reserved are left out."""
    pages: dict[int, int] = {}
    for size in _folders(folder):
        kib = size.name.removeprefix("hugepages-").removesuffix("kB")
        free = _number(size / "free_hugepages")
        if kib.isdigit() and free:
            pages[int(kib)] = free
    return pages


def _sriov(folder: Path) -> tuple[SriovFunction, ...]:
    functions = []
    for device in _folders(folder):
        total = _number(device / "sriov_totalvfs")
        if not total:
            continue
        interfaces = _folders(device / "net")
        driver = device / "driver"
        functions.append(
            SriovFunction(
                address=device.name,
                interface=interfaces[0].name if interfaces else None,
                driver=driver.resolve().name if driver.exists() else None,
                total_vfs=total,
                vfs=_number(device / "sriov_numvfs"),
            )
        )
    return tuple(functions)


def _usb(folder: Path) -> tuple[UsbDevice, ...]:
    """USB devices, without the hubs at the roots of the buses and without interfaces."""
    devices = []
    for device in _folders(folder):
        vendor = _text(device / "idVendor").strip()
        if not vendor or device.name.startswith("usb"):
            continue
        words = (_text(device / part).strip() for part in ("manufacturer", "product"))
        devices.append(
            UsbDevice(
                bus=_number(device / "busnum"),
                device=_number(device / "devnum"),
                vendor_id=vendor,
                product_id=_text(device / "idProduct").strip(),
                description=" ".join(word for word in words if word),
            )
        )
    return tuple(sorted(devices, key=lambda device: (device.bus, device.device)))


def _meminfo_mib(text: str, field: str = "MemTotal") -> int:
    """A field of /proc/meminfo or of a node's meminfo (`Node 0 MemTotal: ...`)."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.split()[-1:] == [field]:
            return int(value.split()[0]) // KIB_PER_MIB
    return 0


def _cpu_model(text: str) -> str:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return ""


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _text(path).strip()
    return int(text) if text.isdigit() else 0
