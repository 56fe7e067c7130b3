"""The disk inspector on an imagined sysfs: what it leaves out, and what it calls blank."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from trivet.contracts.driver import DriverContext
from trivet.contracts.model import MIB
from trivet.contracts.storage.disk import DiskFacts
from trivet.plugins.storage.sysfs_disks import SysfsDisks, SysfsDisksConfig
from trivet.testing.suites.disk_inspector import DiskInspectorSuite


class Machine:
    """A sysfs, a /dev with files for disks, and a /proc."""

    def __init__(self, folder: Path) -> None:
        self.sys, self.dev, self.proc = folder / "sys", folder / "dev", folder / "proc"
        for path in (self.sys / "block", self.dev, self.proc / "self"):
            path.mkdir(parents=True)
        (self.proc / "self/mountinfo").write_text("")
        config = SysfsDisksConfig(sys_root=self.sys, dev_root=self.dev, proc_root=self.proc)
        self.inspector = SysfsDisks(DriverContext("n1", folder, folder), config)

    def disk(self, name: str, *, serial: str = "", size: int = 16 * MIB) -> Path:
        folder = self.sys / "block" / name
        (folder / "device").mkdir(parents=True)
        (folder / "queue").mkdir()
        (folder / "holders").mkdir()
        (folder / "size").write_text(f"{size // 512}\n")
        (folder / "dev").write_text("8:0\n")
        (folder / "queue/rotational").write_text("1\n")
        if serial:
            (folder / "device/serial").write_text(f"{serial}\n")
        with (self.dev / name).open("wb") as file:
            file.truncate(size)
        return folder

    async def one(self) -> DiskFacts:
        (facts,) = await self.inspector.disks()
        return facts


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def driver(machine: Machine) -> SysfsDisks:
    machine.disk("vdb", serial="S1")
    machine.disk("vdc")
    return machine.inspector


class TestSysfsDisks(DiskInspectorSuite):
    """The suite, on the imagined machine."""


async def test_a_blank_disk_is_told_with_its_facts(machine: Machine) -> None:
    machine.disk("sda", serial="ABC 123")
    facts = await machine.one()
    assert facts.device == "/dev/sda"
    assert (facts.serial, facts.size_bytes, facts.rotational) == ("ABC 123", 16 * MIB, True)
    assert facts.holds == ""


async def test_what_is_no_disk_is_left_out(machine: Machine) -> None:
    for name in ("loop0", "ram0", "zram0", "nbd0", "dm-0", "md0", "sr0"):
        machine.disk(name)
    machine.disk("sdz", size=0)
    assert await machine.inspector.disks() == ()


def mkfs(path: Path) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-L", "data", path], check=True)


async def test_a_file_system_is_named(machine: Machine) -> None:
    machine.disk("sda")
    mkfs(machine.dev / "sda")
    assert (await machine.one()).holds == "ext4 data"


async def test_partitions_holders_mounts_and_swap_are_told(machine: Machine) -> None:
    folder = machine.disk("sda")
    (machine.proc / "swaps").write_text("Filename Type\n/dev/sda partition\n")
    assert (await machine.one()).holds == "swap"
    (folder / "holders/dm-3").mkdir()
    assert (await machine.one()).holds == "used by dm-3"
    (folder / "sda1").mkdir()
    (folder / "sda1/partition").write_text("1\n")
    assert (await machine.one()).holds == "partitions sda1"
    (machine.proc / "self/mountinfo").write_text("22 1 8:0 / /srv rw - xfs /dev/sda rw\n")
    assert (await machine.one()).holds == "mounted on /srv"


@pytest.mark.parametrize("at", [100, 16 * MIB - 100])
async def test_bytes_that_nobody_knows_are_unknown(machine: Machine, at: int) -> None:
    machine.disk("sda")
    with (machine.dev / "sda").open("r+b") as file:
        file.seek(at)
        file.write(b"something")
    assert (await machine.one()).holds == "unknown"


async def test_what_cannot_be_read_is_unknown(machine: Machine) -> None:
    machine.disk("sda")
    (machine.dev / "sda").unlink()
    assert (await machine.one()).holds == "unknown"


async def test_a_folder_of_links_names_all_disks_whatever_they_are(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    for name in ("vda", "loop3", "loop4"):
        machine.disk(name)
    links = tmp_path / "links"
    links.mkdir()
    (links / "d1").symlink_to(machine.dev / "loop4")
    (links / ".d2").symlink_to(machine.dev / "loop3")  # being put in
    (links / "d3").symlink_to(machine.dev / "loop9")  # not there
    config = SysfsDisksConfig(
        links=links, sys_root=machine.sys, dev_root=machine.dev, proc_root=machine.proc
    )
    inspector = SysfsDisks(DriverContext("n1", tmp_path, tmp_path), config)
    (facts,) = await inspector.disks()
    assert (facts.device, facts.serial) == ("/dev/loop4", "d1")
    (links / "d1").unlink()
    assert await inspector.disks() == ()


async def test_one_that_nothing_links_to_any_more_was_pulled(tmp_path: Path) -> None:
    """Its device is still there: another machine's, or about to go."""
    machine = Machine(tmp_path)
    machine.disk("loop4")
    links = tmp_path / "links"
    links.mkdir()
    (links / "d1").symlink_to(machine.dev / "loop4")
    config = SysfsDisksConfig(
        links=links, sys_root=machine.sys, dev_root=machine.dev, proc_root=machine.proc
    )
    inspector = SysfsDisks(DriverContext("n1", tmp_path, tmp_path), config)
    assert (await inspector.read("/dev/loop4", 10)).present
    (links / "d1").unlink()
    assert not (await inspector.read("/dev/loop4", 10)).present
