"""Reading disks, on an imagined sysfs: what hangs, fails, is slow, or is gone."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from trivet.contracts.model import MIB
from trivet.contracts.storage.inspector import DiskProbe
from trivet.plugins.storage.disk_probe import DiskProbes
from trivet.plugins.storage.sysfs_disks import SysfsDisks
from trivet.testing.fakes.disk_inspector import FakeDiskInspector


class Machine:
    def __init__(self, folder: Path) -> None:
        self.block, self.dev = folder / "block", folder / "dev"
        (self.block / "vdb/device").mkdir(parents=True)
        self.dev.mkdir()
        (self.block / "vdb/size").write_text(f"{MIB // 512}\n")
        (self.dev / "vdb").write_bytes(bytes(MIB))
        self.probes = DiskProbes(self.block, self.dev)

    def counted(self, requests: int, busy_ms: int) -> None:
        (self.block / "vdb/stat").write_text(f"{requests} 0 0 {busy_ms} 0 0 0 0 0 0 0\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_drivers_can_be_asked() -> None:
    assert hasattr(SysfsDisks, "read")
    assert hasattr(FakeDiskInspector, "read")
    assert DiskProbe is not None


async def test_a_disk_that_does_well(machine: Machine) -> None:
    told = await machine.probes.read("/dev/vdb", 3)
    assert told.present
    assert told.answered
    assert not told.failed
    assert told.latency_ms is not None


async def test_what_all_requests_took_is_told_where_the_kernel_counts_it(machine: Machine) -> None:
    machine.counted(10, 100)
    await machine.probes.read("/dev/vdb", 3)
    machine.counted(20, 2100)
    assert (await machine.probes.read("/dev/vdb", 3)).latency_ms == 200


async def test_errors_are_counted_once(machine: Machine) -> None:
    counter = machine.block / "vdb/device/ioerr_cnt"
    counter.write_text("0x10\n")
    assert (await machine.probes.read("/dev/vdb", 3)).errors == 0
    counter.write_text("0x13\n")
    assert (await machine.probes.read("/dev/vdb", 3)).errors == 3
    assert (await machine.probes.read("/dev/vdb", 3)).errors == 0


async def test_a_read_that_fails(machine: Machine) -> None:
    (machine.dev / "vdb").unlink()
    told = await machine.probes.read("/dev/vdb", 3)
    assert told.failed
    assert told.errors == 1


async def test_a_read_that_hangs_is_left_alone_and_ends_some_day(machine: Machine) -> None:
    (machine.dev / "vdb").unlink()
    os.mkfifo(machine.dev / "vdb")  # opening it for reading hangs until somebody writes
    before = len(os.listdir("/proc/self/task"))
    for _ in range(5):
        assert not (await machine.probes.read("/dev/vdb", 0.05)).answered
    assert len(os.listdir("/proc/self/task")) <= before + 3, "a hanging disk takes one thread"
    # What has hung for that long is not waited for again: looks go on once a second.
    asked = asyncio.create_task(machine.probes.read("/dev/vdb", 0.05))
    assert not (await asyncio.wait_for(asked, 30)).answered
    handle = os.open(machine.dev / "vdb", os.O_WRONLY)
    told = await machine.probes.read("/dev/vdb", 10)
    assert told.answered
    os.close(handle)


async def test_a_disk_that_is_pulled(machine: Machine) -> None:
    assert not (await machine.probes.read("/dev/vdx", 1)).present
