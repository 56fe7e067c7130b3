"""A libvirtd of its own with real guests under TCG, for tests of the libvirt driver.

A test file imports the fixtures that it needs from here.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from trivet.contracts.compute.hypervisor import (
    Act,
    DomainDisk,
    DomainNic,
    DomainSpec,
)
from trivet.contracts.driver import DriverContext
from trivet.contracts.model import ResourceId
from trivet.host import libvirtd
from trivet.plugins.compute import cpu_groups
from trivet.plugins.compute.libvirt import LibvirtConfig, LibvirtHypervisor

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
            validate_xml=True, uri=self.described.uri, accel="tcg", guest_logs=logs, cgroups=cgroups
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
async def weighed(tiny: Any, capabilities: None) -> AsyncIterator[LibvirtBench]:
    """A bench whose guests are in a cgroup, for processors to be shared out."""
    folder, prefix = Path(tempfile.mkdtemp(prefix="tv-hv-")), f"tvg{os.getpid()}"
    if why := cpu_groups.make(prefix, os.cpu_count() or 1):
        pytest.skip(why)
    made = LibvirtBench(folder, tiny.image, prefix, cgroups=True)
    await made.open()
    yield made
    await made.close()
    cpu_groups.remove(prefix)
    group = cpu_groups.group_of(prefix)
    assert group is not None
    assert not group.folder.exists()
    shutil.rmtree(folder)


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    return done.stdout
