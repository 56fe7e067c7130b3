"""The libvirt driver obeys the law, with a libvirtd of its own and real guests under TCG."""

import asyncio
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pycdlib
import pytest

from trivet.contracts.compute.hypervisor import (
    Act,
    DomainDisk,
    DomainEvent,
    DomainNic,
    DomainSpec,
    DomainTuning,
)
from trivet.contracts.compute.vm import Power
from trivet.contracts.driver import DriverContext
from trivet.contracts.errors import NOT_SUPPORTED, Refused, Retry
from trivet.contracts.model import ResourceId
from trivet.host import libvirtd
from trivet.plugins.compute import cpu_groups
from trivet.plugins.compute.libvirt import LibvirtConfig, LibvirtHypervisor
from trivet.plugins.compute.libvirt_xml import domain_uuid
from trivet.testing.suites.consoles import ConsoleSuite, reported
from trivet.testing.suites.hypervisor import HypervisorSuite, boot, see

pytestmark = pytest.mark.root

ID = ResourceId("vm-00000000000000c1")
CAPABILITIES = Path(tempfile.gettempdir()) / f"tv-capabilities-{os.getpid()}"
UEFI_VARS = Path(LibvirtConfig().uefi_vars)
FOREIGN = """<domain type='qemu'><name>theirs</name><memory unit='MiB'>32</memory>
<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"""


class LibvirtBench:
    """A libvirtd in a folder, and a disk that qemu-nbd serves: both ours to kill."""

    patience_s = 120.0

    def __init__(
        self, folder: Path, image: Path, prefix: str = "tv", cgroups: bool = False
    ) -> None:
        self.folder = folder
        self.prefix = prefix
        hidden = cpu_groups.idle_unified()
        self.described = libvirtd.describe(
            folder / "libvirt",
            folder / "run/libvirt",
            str(uuid.uuid4()),
            cgroups=cgroups,
            hide=(hidden,) if hidden else (),
        )
        context = DriverContext("n1", folder / "state", folder / "run", prefix)
        logs = folder / "libvirt/log/qemu"
        config = LibvirtConfig(
            uri=self.described.uri, accel="tcg", guest_logs=logs, cgroups=cgroups
        )
        self.driver = LibvirtHypervisor(context, config)
        self._image = image
        self._daemon: subprocess.Popen[bytes] | None = None
        self._disk: subprocess.Popen[bytes] | None = None
        self._more: subprocess.Popen[bytes] | None = None
        self.tap = f"tvt{os.getpid() % 10**8}"

    def spec(self, generation: int = 1) -> DomainSpec:
        disk = DomainDisk(
            name="root",
            socket=str(self.folder / "disk.sock"),
            export="root.e1",
            serial="root",
            boot_order=1,
        )
        return DomainSpec(
            id=ID,
            name="web-1",
            project="p1",
            generation=generation,
            epoch=7,
            vcpus=1,
            memory_mib=128,
            disks=(disk,),
        )

    def more(self) -> tuple[DomainDisk, DomainNic]:
        socket = self.folder / "data.sock"
        if self._more is None:
            self._more = serve(self.folder / "data.raw", socket, "data.e1")
            ip("tuntap", "add", self.tap, "mode", "tap", "vnet_hdr")
        disk = DomainDisk(name="data", socket=str(socket), export="data.e1", serial="data")
        return disk, DomainNic(device=self.tap, mac="52:54:00:00:00:09", mtu=1450)

    async def guest_sees(self, id_: ResourceId) -> tuple[set[str], set[str]]:
        macs = await self.shell(id_, "cat /sys/class/net/eth*/address")
        serials = await self.shell(id_, "for d in /sys/block/vd*; do cat $d/serial; echo; done")
        return set(serials.split()), {m for m in macs.split() if m.count(":") == 5}

    async def guest_counts(self, id_: ResourceId) -> tuple[int, int]:
        said = await self.shell(id_, "nproc; awk '/MemTotal/ {print $2}' /proc/meminfo")
        vcpus, memory_kib = said.split()
        return int(vcpus), int(memory_kib) // 1024

    async def guest_disk_bytes(self, id_: ResourceId, disk: DomainDisk) -> int:
        find = f"grep -lx {disk.serial} /sys/block/vd*/serial"
        async with asyncio.timeout(self.patience_s):
            while True:
                said = await self.shell(id_, f"cat $(dirname $({find}))/size")
                if said.strip().isdigit():
                    return int(said) * 512
                await asyncio.sleep(0.2)

    async def serve_larger(self, disk: DomainDisk, size_bytes: int) -> None:
        assert self._more is not None
        self._more.kill()
        await asyncio.to_thread(self._more.wait)
        os.unlink(disk.socket)
        file = self.folder / "data.raw"
        os.truncate(file, size_bytes)
        self._more = serve(file, Path(disk.socket), disk.export)

    async def shell(self, id_: ResourceId, command: str) -> str:
        """What a command in the guest's shell says."""
        reader, writer = await asyncio.open_unix_connection(await self.driver.console_path(id_))
        try:
            # The words that are waited for are not in the line that the terminal echoes.
            writer.write(f"echo be''gin; {command} 2>/dev/null; echo en''d\n".encode())
            await writer.drain()
            async with asyncio.timeout(self.patience_s):
                await reader.readuntil(b"begin\r\n")
                said = await reader.readuntil(b"end\r\n")
        finally:
            writer.close()
            await writer.wait_closed()
        return said.removesuffix(b"end\r\n").decode(errors="replace")

    async def open(self) -> None:
        if CAPABILITIES.exists():  # else libvirtd looks at QEMU anew for seconds, each time
            shutil.copytree(CAPABILITIES, self.folder / "libvirt/cache")
        for folder in (*self.described.folders, self.folder / "state", self.folder / "run"):
            folder.mkdir(parents=True, exist_ok=True)
        for path, text in self.described.files.items():
            path.write_text(text)
        shutil.copyfile(self._image, self.folder / "disk.raw")
        self.serve_root()
        await self.restore()
        await self.driver.open()

    async def lose(self) -> None:
        assert self._daemon is not None
        self._daemon.kill()
        await asyncio.to_thread(self._daemon.wait)

    async def restore(self) -> None:
        self._daemon = await asyncio.to_thread(self._start_daemon)
        async with asyncio.timeout(60):
            while True:
                if await asyncio.to_thread(self._answers):
                    return
                await asyncio.sleep(0.1)

    async def add_foreign(self) -> None:
        (self.folder / "foreign.xml").write_text(FOREIGN)
        self.virsh("define", str(self.folder / "foreign.xml"))

    def virsh(self, *words: str) -> str:
        done = subprocess.run(
            ["virsh", "-q", "-c", self.described.uri, *words],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.stdout

    async def close(self) -> None:
        for state in await self.driver.domains():
            await self.driver.act(state.id, Act.DESTROY)
        await self.driver.close()
        for process in (self._daemon, self._disk, self._more):
            if process is not None:
                process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(process.wait, 30)
        if self._more is not None:
            ip("link", "del", self.tap)
        if not CAPABILITIES.exists():
            shutil.copytree(self.folder / "libvirt/cache", CAPABILITIES)

    def _start_daemon(self) -> subprocess.Popen[bytes]:
        with (self.folder / "libvirtd.log").open("ab") as log:
            return subprocess.Popen(self.described.argv, stdout=log, stderr=log)

    def _answers(self) -> bool:
        try:
            self.virsh("version")
        except subprocess.CalledProcessError:
            return False
        return True

    def serve_root(self) -> None:
        self._disk = serve(self.folder / "disk.raw", self.folder / "disk.sock", "root.e1")

    def stop_root(self) -> None:
        assert self._disk is not None
        self._disk.kill()
        self._disk.wait()
        (self.folder / "disk.sock").unlink()


def serve(disk: Path, socket: Path, export: str) -> subprocess.Popen[bytes]:
    """A disk of 256 MiB or more, made or made larger, as NBD."""
    with disk.open("ab") as file:
        file.truncate(max(256 * 1024 * 1024, file.tell()))
    options = ["-t", "-e", "4", "-f", "raw", "-x", export, "-k", socket, "--discard=unmap"]
    server = subprocess.Popen(["qemu-nbd", *options, disk])
    while not socket.exists():
        assert server.poll() is None
        time.sleep(0.01)
    return server


@pytest.fixture(scope="module")
def capabilities() -> Iterator[None]:
    yield
    shutil.rmtree(CAPABILITIES, ignore_errors=True)


@pytest.fixture
async def bench(tiny: Any, capabilities: None) -> AsyncIterator[LibvirtBench]:
    folder = Path(tempfile.mkdtemp(prefix="tv-hv-"))  # short: sockets' paths are bounded
    made = LibvirtBench(folder, tiny.image)
    await made.open()
    yield made
    await made.close()
    shutil.rmtree(folder)


@pytest.fixture
async def weighed(image: Path) -> AsyncIterator[LibvirtBench]:
    """A bench whose guests are in a cgroup, for processors to be shared out."""
    folder, prefix = Path(tempfile.mkdtemp(prefix="tv-hv-")), f"tvg{os.getpid()}"
    if why := cpu_groups.make(prefix, os.cpu_count() or 1):
        pytest.skip(why)
    made = LibvirtBench(folder, image, prefix, cgroups=True)
    await made.open()
    yield made
    await made.close()
    cpu_groups.remove(prefix)
    group = cpu_groups.group_of(prefix)
    assert group is not None
    assert not group.folder.exists()
    shutil.rmtree(folder)


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
    bench.driver = LibvirtHypervisor(context, LibvirtConfig(uri=bench.described.uri, accel="tcg"))
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
    driver = LibvirtHypervisor(context, LibvirtConfig(uri=uri, accel="tcg"))
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


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    return done.stdout


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
    assert group.unified or kernel()[0] == "2048"
    weighed.virsh("schedinfo", f"{weighed.prefix}-{ID}", "--live", "--set", "vcpu_quota=90000")
    (state,) = await driver.domains()
    assert state.cpu is None, "somebody else changed it"
    await driver.tune(ID, DomainTuning(shares=1024))
    (state,) = await driver.domains()
    assert state.cpu == DomainTuning(shares=1024)
    # Killed beside a dead libvirtd, a guest leaves its group behind: the next look takes it away.
    pid = int((weighed.folder / f"run/libvirt/qemu/{weighed.prefix}-{ID}.pid").read_text())
    await weighed.lose()
    os.kill(pid, signal.SIGKILL)
    await weighed.restore()
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
    bootable_iso(bench.folder / "cd.iso", b"CD READY")
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
        assert b"CD READY" in await bench.driver.console_log(ID, 4000)
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
            installed.write(says(b"DISK READY"))
        await boot(bench, spec.model_copy(update={"epoch": 8}))
        assert b"DISK READY" in await bench.driver.console_log(ID, 4000)
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
