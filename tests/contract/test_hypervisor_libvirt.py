"""The libvirt driver obeys the law, with a libvirtd of its own and real guests under TCG."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.contract.libvirt_bench import ID, LibvirtBench, bench, capabilities, ip

from trivet.contracts.compute.hypervisor import (
    Act,
    DomainEvent,
    DomainNic,
    DomainTuning,
)
from trivet.contracts.compute.vm import Power
from trivet.contracts.driver import DriverContext
from trivet.contracts.errors import Retry
from trivet.plugins.compute.libvirt import LibvirtConfig, LibvirtHypervisor
from trivet.plugins.compute.libvirt_xml import domain_uuid
from trivet.testing.suites.consoles import ConsoleSuite, reported
from trivet.testing.suites.hypervisor import HypervisorSuite, boot, see

pytestmark = pytest.mark.root

__all__ = ["bench", "capabilities"]

UEFI_VARS = Path(LibvirtConfig().uefi_vars)


class TestLibvirt(HypervisorSuite):
    """The law."""


class TestLibvirtConsoles(ConsoleSuite):
    """The law for consoles."""


async def test_guests_outlive_the_driver_and_keep_their_data(bench: LibvirtBench) -> None:
    spec = bench.spec()
    await boot(bench, spec)
    assert b"boots: 1\r\n" in await bench.driver.console_log(spec.id, 100_000)
    await bench.driver.close()
    context = DriverContext("n1", bench.folder / "state", bench.folder / "run")
    bench.driver = LibvirtHypervisor(
        context, LibvirtConfig(uri=bench.described.uri, accel="tcg", validate_xml=True)
    )
    await bench.driver.open()
    assert (await see(bench, spec.id, lambda s: s.power is Power.RUNNING)).ready
    await bench.driver.act(spec.id, Act.SHUTDOWN)
    await see(bench, spec.id, lambda s: s.power is Power.STOPPED)
    await boot(bench, spec)
    assert b"boots: 2\r\n" in await bench.driver.console_log(spec.id, 100_000)


async def test_a_forgotten_guest_leaves_no_file(bench: LibvirtBench) -> None:
    def named() -> list[str]:
        return sorted(str(path) for path in bench.folder.rglob(f"*{ID}*"))

    spec = bench.spec()
    await boot(bench, spec)
    assert any(name.endswith(f"log/qemu/tv-{ID}.log") for name in named())
    await bench.driver.act(spec.id, Act.DESTROY)
    await bench.driver.undefine(spec.id)
    assert named() == []


async def test_a_killed_guest_reads_as_crashed(bench: LibvirtBench) -> None:
    spec = bench.spec()
    await boot(bench, spec)
    pid = bench.folder / f"run/libvirt/qemu/tv-{ID}.pid"
    os.kill(int(pid.read_text()), signal.SIGKILL)
    ended = await see(bench, spec.id, lambda s: s.power is Power.STOPPED)
    assert ended.reason == "crashed"


async def test_a_lost_disk_pauses_the_guest_until_it_is_there_again(bench: LibvirtBench) -> None:
    spec = bench.spec()
    await boot(bench, spec)
    bench.stop_root()
    path = await bench.driver.console_path(spec.id)
    _, writer = await asyncio.open_unix_connection(path)
    writer.write(b"dd if=/dev/zero of=/data/x bs=4096 count=1; sync; echo wrote $?\n")
    await writer.drain()
    paused = await see(bench, spec.id, lambda s: s.power is Power.PAUSED)
    assert paused.reason == "io_error"
    bench.serve_root()
    async with asyncio.timeout(bench.patience_s):
        while True:
            await bench.driver.act(spec.id, Act.RESUME)
            if b"wrote 0" in await bench.driver.console_log(spec.id, 4000):
                break
            await asyncio.sleep(1.0)
    writer.close()
    await writer.wait_closed()


async def test_a_disk_that_is_back_soon_is_not_missed(bench: LibvirtBench) -> None:
    spec = bench.spec()
    await boot(bench, spec)
    heard: list[DomainEvent] = []
    bench.driver.listen(heard.append)
    bench.stop_root()
    bench.serve_root()
    said = await bench.shell(spec.id, "echo x >/data/y; sync; echo wrote $?")
    assert "wrote 0" in said
    assert not heard, "the guest was not stopped"


async def test_uefi_and_tpm_have_a_state_of_their_own(bench: LibvirtBench) -> None:
    if not (await bench.driver.inventory()).tpm:
        pytest.skip("swtpm is not installed")
    spec = bench.spec().model_copy(update={"firmware": "uefi", "tpm": True, "memory_mib": 256})
    await boot(bench, spec)
    said = await bench.shell(spec.id, "ls -d /sys/firmware/efi /sys/firmware/acpi/tables/TPM2")
    assert said.split()[-2:] == ["/sys/firmware/acpi/tables/TPM2", "/sys/firmware/efi"]
    nvram = bench.folder / f"state/nvram/{ID}.fd"
    tpm = bench.folder / "libvirt/lib/swtpm" / domain_uuid(ID)
    before = nvram.read_bytes()
    template = await asyncio.to_thread(UEFI_VARS.read_bytes)
    assert len(before) == len(template)
    assert before != template, "the firmware wrote its variables"
    assert list(tpm.rglob("*")), "the TPM keeps its state here"
    assert await bench.driver.altered() == (), "what libvirt fills in for a run is no change"
    await bench.driver.act(spec.id, Act.DESTROY)
    await see(bench, spec.id, lambda s: s.power is Power.STOPPED)
    await bench.driver.define(spec.model_copy(update={"epoch": 8}))
    assert nvram.exists()
    assert tpm.exists()
    await bench.driver.undefine(spec.id)
    assert not nvram.exists()
    assert not tpm.exists()


FREEZE_AND_DIE = """
import asyncio, os, signal, sys
from pathlib import Path
from trivet.contracts.driver import DriverContext
from trivet.plugins.compute.libvirt import LibvirtConfig, LibvirtHypervisor

async def main(folder, uri, id_):
    context = DriverContext("n1", folder / "state", folder / "run")
    driver = LibvirtHypervisor(context, LibvirtConfig(uri=uri, accel="tcg", validate_xml=True))
    await driver.open()
    print(await driver.freeze(id_, 3), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
"""


async def test_what_is_frozen_thaws_though_its_freezer_was_killed(bench: LibvirtBench) -> None:
    spec = bench.spec()
    await boot(bench, spec)
    await reported(bench, spec.id)
    argv = (sys.executable, "-c", FREEZE_AND_DIE, bench.folder, bench.described.uri, spec.id)
    killed = await asyncio.create_subprocess_exec(*argv, stdout=subprocess.PIPE)
    out, _ = await killed.communicate()
    assert (int(out) >= 1, killed.returncode) == (True, -signal.SIGKILL)
    with pytest.raises(Retry):
        await bench.driver.report(spec.id)
    await reported(bench, spec.id)
    assert await bench.driver.thaw(spec.id) == 0


async def test_a_card_is_a_device_made_by_others(bench: LibvirtBench) -> None:
    device = f"tvt{os.getpid() % 10**8}"
    ip("tuntap", "add", device, "mode", "tap", "vnet_hdr")
    try:
        nic = DomainNic(device=device, mac="52:54:00:aa:bb:cc", mtu=1400)
        tuning = DomainTuning(pin=(0,))
        spec = bench.spec().model_copy(update={"nics": (nic,), "cpu": tuning})
        await bench.driver.define(spec)
        # Not to its READY: it asks for an address first, and nobody answers.
        await bench.driver.act(spec.id, Act.START)
        await see(bench, spec.id, lambda s: s.power is Power.RUNNING)
        # The device is not ours to configure: the MTU is told to the guest alone.
        assert "state DOWN" in ip("-o", "link", "show", device)
        assert "mtu 1500" in ip("-o", "link", "show", device)
        assert "<mtu size='1400'/>" in bench.virsh("dumpxml", f"tv-{ID}")
        assert "52:54:00:aa:bb:cc" in bench.virsh("domiflist", f"tv-{ID}")
        await bench.driver.act(spec.id, Act.DESTROY)
        assert device in ip("-o", "link", "show", device)
    finally:
        ip("link", "del", device)
