"""Processors, CD-ROMs and definitions under the libvirt driver, with real guests under TCG."""

import asyncio
import io
import os
import signal
from pathlib import Path

import pycdlib
import pytest
from tests.contract.libvirt_bench import ID, LibvirtBench, bench, capabilities, serve, weighed

from trivet.contracts.compute.hypervisor import (
    Act,
    DomainDisk,
    DomainTuning,
)
from trivet.contracts.compute.vm import Power
from trivet.contracts.errors import NOT_SUPPORTED, Refused
from trivet.plugins.compute import cpu_groups
from trivet.testing.suites.hypervisor import boot, reach, see

pytestmark = pytest.mark.root

__all__ = ["bench", "capabilities", "weighed"]


async def test_processors_are_shared_out_by_the_kernel(weighed: LibvirtBench) -> None:
    driver = weighed.driver
    assert (await driver.inventory()).cpu_control is True
    spec = weighed.spec().model_copy(update={"cpu": DomainTuning(shares=512, limit_pct=50)})
    assert (await boot(weighed, spec)).cpu == spec.cpu
    group = cpu_groups.group_of(weighed.prefix)
    assert group is not None
    (guest,) = group.folder.glob(f"qemu-*-{weighed.prefix}-{ID}.libvirt-qemu")

    def kernel() -> tuple[str, str]:
        if group.unified:
            quota = (guest / "vcpu0/cpu.max").read_text().split()[0]
            return (guest / "cpu.weight").read_text().strip(), quota
        quota = (guest / "vcpu0/cpu.cfs_quota_us").read_text().strip()
        return (guest / "cpu.shares").read_text().strip(), quota

    assert kernel()[1] == "50000"
    await driver.tune(ID, DomainTuning(shares=2048, limit_pct=20))
    assert kernel()[1] == "20000"
    assert kernel()[0] == ("200" if group.unified else "2048")
    weighed.virsh("schedinfo", f"{weighed.prefix}-{ID}", "--live", "--set", "vcpu_quota=90000")
    (state,) = await driver.domains()
    assert state.cpu is None, "somebody else changed it"
    await driver.tune(ID, DomainTuning(shares=1024))
    (state,) = await driver.domains()
    assert state.cpu == DomainTuning(shares=1024)
    assert (await driver.stats(ID)).cpu_ns > 0, "time is counted in a cgroup, too"
    # Killed beside a dead libvirtd, a guest leaves its group behind: the next look takes it away.
    pid = int((weighed.folder / f"run/libvirt/qemu/{weighed.prefix}-{ID}.pid").read_text())
    await weighed.lose()
    os.kill(pid, signal.SIGKILL)
    await weighed.restore()
    await reach(weighed, there=True)
    await see(weighed, ID, lambda s: s.power is Power.STOPPED)
    await driver.undefine(ID)
    assert not guest.exists()


def says(words: bytes) -> bytes:
    """A boot sector that says so on the serial line, and halts."""
    code = bytes.fromhex(
        "fc 31c0 8ed8"  # cld; ds = 0
        "be167c"  # mov si,0x7c16: the words
        "ac 84c0 7406"  # lodsb; nothing more: halt
        "baf803 ee ebf5"  # out 0x3f8,al; again
        "f4 ebfd"  # hlt for ever
    )
    return (code + words + b"\r\n\0").ljust(510, b"\0") + b"\x55\xaa"


def bootable_iso(file: Path, words: bytes) -> None:
    """A CD-ROM that boots (El Torito), in whole megabytes as a volume would have."""
    iso, sector = pycdlib.PyCdlib(), says(words).ljust(2048, b"\0")
    iso.new()
    iso.add_fp(io.BytesIO(sector), len(sector), "/BOOT.;1")
    iso.add_eltorito("/BOOT.;1")
    iso.write(str(file))
    iso.close()


async def test_a_cdrom_boots_where_the_disks_have_nothing_to_boot(bench: LibvirtBench) -> None:
    blank, _ = bench.more()
    bootable_iso(bench.folder / "cd.iso", b"CD\r\nREADY")
    server = serve(bench.folder / "cd.iso", bench.folder / "cd.sock", "cd.e1")
    try:
        cd = DomainDisk(
            name="cd-tiny",
            socket=str(bench.folder / "cd.sock"),
            export="cd.e1",
            serial="cd",
            boot_order=2,
            cd=True,
        )
        root = blank.model_copy(update={"boot_order": 1})
        spec = bench.spec().model_copy(update={"disks": (root, cd)})
        state = await boot(bench, spec)
        assert b"CD\r\nREADY" in await bench.driver.console_log(ID, 4000)
        assert state.disks == ("data", "cd-tiny")
        for _ in range(2):
            await bench.driver.unplug(ID, "cd-tiny")
        await see(bench, ID, lambda s: s.disks == ("data",))
        other = cd.model_copy(update={"name": "cd-other"})
        for disk in (cd, cd, other):
            await bench.driver.plug(ID, disk)
            await see(bench, ID, lambda s, disk=disk: s.disks == ("data", disk.name))
        await bench.driver.act(ID, Act.DESTROY)
        with (bench.folder / "data.raw").open("r+b") as installed:
            installed.write(says(b"DISK\r\nREADY"))
        await boot(bench, spec.model_copy(update={"epoch": 8}))
        assert b"DISK\r\nREADY" in await bench.driver.console_log(ID, 4000)
        await bench.driver.act(ID, Act.DESTROY)
        await boot(bench, bench.spec().model_copy(update={"disks": (root,), "epoch": 9}))
        with pytest.raises(Refused) as refused:
            await bench.driver.plug(ID, cd)
        assert refused.value.code is NOT_SUPPORTED
    finally:
        await bench.driver.act(ID, Act.DESTROY)
        server.terminate()
        await asyncio.to_thread(server.wait, 30)


async def test_a_definition_that_somebody_changed_is_seen_and_put_back(
    bench: LibvirtBench,
) -> None:
    driver, spec = bench.driver, bench.spec()
    disk, nic = bench.more()
    spec = spec.model_copy(update={"nics": (nic,), "max_vcpus": 2})
    await driver.define(spec)
    assert await driver.altered() == ()
    await driver.act(ID, Act.START)
    await see(bench, ID, lambda s: s.power is Power.RUNNING)
    await driver.plug(ID, disk)
    assert await driver.altered() == ()
    bench.virsh("setvcpus", f"tv-{ID}", "2", "--config")
    assert await driver.altered() == (ID,)
    await driver.restore(ID)
    assert await driver.altered() == ()
    assert "current='1'" in bench.virsh("dumpxml", f"tv-{ID}", "--inactive")
    (state,) = await driver.domains()
    assert (state.power, state.disks) == (Power.RUNNING, ("root", "data"))
    await driver.act(ID, Act.DESTROY)
    assert await driver.altered() == ()
    await driver.restore(ID)
