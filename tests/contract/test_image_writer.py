"""qemu-img inspects and writes images; the ones that name other files never get that far."""

import asyncio
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from trivet.contracts.driver import DriverContext, NoConfig
from trivet.contracts.errors import INVALID, Refused, Retry
from trivet.contracts.model import MIB
from trivet.plugins.compute.image_convert import QemuImageWriter, percent_in

pytestmark = pytest.mark.root

DATA = os.urandom(MIB)


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *words], check=True, capture_output=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tv-iw-") as made:
        yield Path(made)


@pytest.fixture
def writer(folder: Path) -> QemuImageWriter:
    return QemuImageWriter(DriverContext("n1", folder, folder), NoConfig())


def image(folder: Path, format_: str) -> Path:
    raw, made = folder / "disk.raw", folder / f"disk.{format_}"
    raw.write_bytes(bytes(MIB) + DATA)
    if format_ == "qcow2":
        qemu_img("convert", "-f", "raw", "-O", "qcow2", "-c", raw, made)
    return made


@pytest.fixture
def export(folder: Path) -> Iterator[Path]:
    """A file full of ones, served at `nbd.sock` as `v.e1`."""
    target = folder / "target"
    target.write_bytes(b"\xff" * 2 * MIB)
    socket = folder / "nbd.sock"
    server = subprocess.Popen(
        ["qemu-nbd", "-t", "-f", "raw", "-x", "v.e1", "-k", socket, target],
    )
    yield target
    server.terminate()
    server.wait(10)


def written(export: Path) -> bytes:
    return export.read_bytes()


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
async def test_an_image_gets_into_a_volume(
    folder: Path, writer: QemuImageWriter, export: Path, format_: str
) -> None:
    path = image(folder, format_)
    facts = await writer.inspect(path)
    assert (facts.format, facts.virtual_size_bytes) == (format_, 2 * MIB)
    assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    told: list[int] = []
    async with asyncio.timeout(30):
        while True:
            try:
                await writer.write(
                    path, format_, str(folder / "nbd.sock"), "v.e1", lambda d, _: told.append(d)
                )
                break
            except Retry:  # the server is only starting
                await asyncio.sleep(0.1)
    assert written(export) == bytes(MIB) + DATA
    assert told[-1] == 100


async def test_an_export_that_is_not_there_is_a_retry(
    folder: Path, writer: QemuImageWriter
) -> None:
    with pytest.raises(Retry):
        await writer.write(image(folder, "raw"), "raw", str(folder / "no.sock"), "v", print)


async def test_images_that_name_files_are_refused(folder: Path, writer: QemuImageWriter) -> None:
    secret, overlay, split = folder / "secret", folder / "overlay", folder / "split"
    secret.write_bytes(b"secret" * 1000)
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", secret, overlay)
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={folder}/outside", split, "1M")
    vmdk = folder / "disk.vmdk"
    qemu_img("create", "-f", "vmdk", vmdk, "1M")
    for path in (overlay, split, vmdk):
        with pytest.raises(Refused) as refused:
            await writer.inspect(path)
        assert refused.value.code is INVALID
        with pytest.raises(Refused):
            await writer.write(path, "qcow2", str(folder / "no.sock"), "v", print)


async def test_a_broken_image_is_refused(folder: Path, writer: QemuImageWriter) -> None:
    path = image(folder, "qcow2")
    os.truncate(path, 200)
    with pytest.raises(Refused):
        await writer.inspect(path)


def test_progress_is_read_from_what_is_printed() -> None:
    assert percent_in(b"    (0.00/100%)\r    (12.51/100%)\r") == 12
    assert percent_in(b"hello") is None
