"""A node's hardware is read from made-up trees."""

from pathlib import Path

import pytest

from trivet.contracts.compute.node import NumaCell, SriovFunction, UsbDevice
from trivet.plugins.compute.inventory import cpu_list, find


def grow(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


BASE = {
    "sys/devices/system/cpu/online": "0-3",
    "proc/meminfo": "MemTotal:       8388608 kB\nMemFree: 1 kB",
    "proc/cpuinfo": "processor : 0\nmodel name\t: Acme 9000\n\nprocessor : 1",
}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", (0,)), ("0-2,5", (0, 1, 2, 5)), ("", ()), ("\n", ()), ("1,3-4\n", (1, 3, 4))],
)
def test_lists_of_processors(text: str, numbers: tuple[int, ...]) -> None:
    assert cpu_list(text) == numbers


def test_a_plain_machine_has_one_cell_with_everything(tmp_path: Path) -> None:
    pages = {"sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "7"}
    found = find(grow(tmp_path, {**BASE, **pages}))
    assert (found.cpus, found.cpu_model, found.memory_mib) == (4, "Acme 9000", 8192)
    assert found.cells == (NumaCell(id=0, cpus=(0, 1, 2, 3), memory_mib=8192, hugepages={2048: 7}),)
    assert (found.sriov, found.usb) == ((), ())


def test_numa_cells_have_their_own_memory_and_pages(tmp_path: Path) -> None:
    node = "sys/devices/system/node"
    tree = {
        f"{node}/online": "0-1",
        f"{node}/node1/cpulist": "2-3",
        f"{node}/node1/meminfo": "Node 1 MemTotal:  2097152 kB",
        f"{node}/node0/cpulist": "0-1",
        f"{node}/node0/meminfo": "Node 0 MemTotal:  4194304 kB",
        f"{node}/node0/hugepages/hugepages-1048576kB/free_hugepages": "2",
        f"{node}/node0/hugepages/hugepages-2048kB/free_hugepages": "0",
    }
    assert find(grow(tmp_path, {**BASE, **tree})).cells == (
        NumaCell(id=0, cpus=(0, 1), memory_mib=4096, hugepages={1048576: 2}),
        NumaCell(id=1, cpus=(2, 3), memory_mib=2048),
    )


def test_sriov_functions(tmp_path: Path) -> None:
    pci = "sys/bus/pci/devices"
    tree = {
        f"{pci}/0000:01:00.0/sriov_totalvfs": "8",
        f"{pci}/0000:01:00.0/sriov_numvfs": "2",
        f"{pci}/0000:01:00.0/net/ens1/address": "x",
        f"{pci}/0000:02:00.0/sriov_totalvfs": "4",
        f"{pci}/0000:03:00.0/class": "0x020000",
        "sys/bus/pci/drivers/igb/bind": "",
    }
    root = grow(tmp_path, {**BASE, **tree})
    (root / pci / "0000:01:00.0/driver").symlink_to(root / "sys/bus/pci/drivers/igb")
    assert find(root).sriov == (
        SriovFunction(address="0000:01:00.0", interface="ens1", driver="igb", total_vfs=8, vfs=2),
        SriovFunction(address="0000:02:00.0", interface=None, driver=None, total_vfs=4, vfs=0),
    )


def test_usb_devices_without_hubs_and_interfaces(tmp_path: Path) -> None:
    usb = "sys/bus/usb/devices"
    tree = {
        f"{usb}/usb1/idVendor": "1d6b",
        f"{usb}/1-2/idVendor": "0951",
        f"{usb}/1-2/idProduct": "1666",
        f"{usb}/1-2/busnum": "1",
        f"{usb}/1-2/devnum": "5",
        f"{usb}/1-2/product": "DataTraveler",
        f"{usb}/1-2/manufacturer": "Kingston",
        f"{usb}/1-2:1.0/bInterfaceClass": "08",
    }
    assert find(grow(tmp_path, {**BASE, **tree})).usb == (
        UsbDevice(
            bus=1,
            device=5,
            vendor_id="0951",
            product_id="1666",
            description="Kingston DataTraveler",
        ),
    )


def test_a_machine_that_shows_nothing_has_nothing(tmp_path: Path) -> None:
    found = find(tmp_path)
    assert (found.cpus, found.memory_mib) == (0, 0)


def test_this_machine() -> None:
    found = find()
    assert found.cpus > 0
    assert found.memory_mib > 0
