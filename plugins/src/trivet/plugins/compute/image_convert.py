"""Looks at image files and writes the disks in them to volumes, by qemu-img.

What may be opened is decided by `image_safety`, before any program sees the file. qemu-img is
always told the format, never left to guess, and looks at a stranger's image only within
bounds of memory and processor time. A write goes to an NBD export, never to a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import shutil
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

from trivet.contracts.compute.image_source import ImageFacts, ImageWriter, Progress
from trivet.contracts.driver import DriverContext, NoConfig, Probe
from trivet.contracts.errors import DRIVER_FAILED, INVALID, NOT_SUPPORTED, Fatal, Refused, Retry
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import GIB, MIB, Model
from trivet.plugins.compute.image_safety import HEADER_BYTES, check_info, format_of

LOOK_BOUND_S = 30
MEMORY_BOUND_BYTES = GIB
HASH_AT_ONCE_BYTES = 8 * MIB
COROUTINES = 8

_PERCENT = re.compile(rb"\((\d+(?:\.\d+)?)/100%\)")
_BROKEN_SOURCE = (b"error while reading", b"Could not open '/")


class QemuImageWriter:
    """Inspects and writes raw and qcow2 images; see the law in `contracts.compute.image_source`."""

    name: ClassVar[str] = "qemu-img"
    Config: ClassVar[type[Model]] = NoConfig

    def __init__(self, context: DriverContext, config: NoConfig) -> None:
        """Needs neither a place nor a configuration."""

    def __repr__(self) -> str:
        return "<QemuImageWriter>"

    @classmethod
    async def probe(cls) -> Probe:
        """Usable where qemu-img and prlimit are."""
        for program in ("qemu-img", "prlimit"):
            if shutil.which(program) is None:
                return Probe(usable=False, reason=f"{program} is not installed")
        return Probe(usable=True, reason="qemu-img is installed", score=10)

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    async def inspect(self, path: Path) -> ImageFacts:
        """What the file holds; `Refused(INVALID)` for what may not be imported."""
        format_ = format_of(await asyncio.to_thread(_header, path))
        size_bytes = check_info(await _info(path, format_), format_)
        sha256 = await _digest(path)
        return ImageFacts(format=format_, virtual_size_bytes=size_bytes, sha256=sha256)

    async def write(
        self, path: Path, format_: str, socket: str, export: str, progress: Progress
    ) -> None:
        """Write the disk to the export. Cancelled, qemu-img is ended.

        The header is looked at again, so that no caller can leave it out. Raises `Refused` for a
        source that can't be read, `Retry` for everything else that failed.
        """
        if format_of(await asyncio.to_thread(_header, path)) != format_:
            raise Refused(NOT_SUPPORTED, f"the image is not {format_} any more")
        argv = (
            *("qemu-img", "convert", "-p", "-n", "-f", format_, "-O", "raw"),
            *("-t", "writeback", "-W", "-m", str(COROUTINES)),
            *(str(path), nbd_uri(socket, export)),
        )
        async with _running(*argv) as process:
            if process.stdout is None or process.stderr is None:
                raise Fatal(DRIVER_FAILED, "qemu-img was started without pipes")
            _, said = await asyncio.gather(_show(process.stdout, progress), process.stderr.read())
            await process.wait()
        if process.returncode != 0:
            words = said.decode(errors="replace").strip()[:300]
            if any(sign in said for sign in _BROKEN_SOURCE):
                raise Refused(INVALID, f"the image can't be read: {words}")
            raise Retry(DRIVER_FAILED, f"the image could not be written to its volume: {words}")


def nbd_uri(socket: str, export: str) -> str:
    """The URI of an export that is served on a unix socket."""
    name = urllib.parse.quote(export, safe="")
    return f"nbd+unix:///{name}?socket={urllib.parse.quote(socket)}"


def percent_in(text: bytes) -> int | None:
    """The last progress in what `qemu-img -p` printed, in whole per cent."""
    found = _PERCENT.findall(text)
    return int(float(found[-1])) if found else None


async def _info(path: Path, format_: str) -> dict[str, object]:
    """What `qemu-img info` says, asked within bounds."""
    argv = (
        *("prlimit", f"--as={MEMORY_BOUND_BYTES}", f"--cpu={LOOK_BOUND_S}", "--"),
        *("qemu-img", "info", "--output=json", "-f", format_, str(path)),
    )
    try:
        async with asyncio.timeout(LOOK_BOUND_S), _running(*argv) as process:
            out, said = await process.communicate()
    except TimeoutError as e:
        raise Refused(INVALID, f"looking at the image took more than {LOOK_BOUND_S} s") from e
    if process.returncode != 0:
        words = said.decode(errors="replace").strip()[:300]
        raise Refused(INVALID, f"the image can't be read: {words}")
    info: dict[str, object] = json.loads(out)
    return info


async def _digest(path: Path) -> str:
    """The SHA-256 of the file, in hex; read piecewise, so that it can be cancelled."""
    digest = hashlib.sha256()
    file = await asyncio.to_thread(path.open, "rb")
    with file:
        while piece := await asyncio.to_thread(file.read, HASH_AT_ONCE_BYTES):
            await asyncio.to_thread(digest.update, piece)
    return digest.hexdigest()


async def _show(shown: asyncio.StreamReader, progress: Progress) -> None:
    while text := await shown.read(4096):
        if (percent := percent_in(text)) is not None:
            progress(percent, 100)


@contextlib.asynccontextmanager
async def _running(*argv: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that does not outlive the block."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
    except OSError as e:
        raise Fatal(DRIVER_FAILED, f"{argv[0]} can't be run: {e.strerror}") from e
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEADER_BYTES)


@hookimpl
def trivet_image_writers() -> list[type[ImageWriter]]:
    """qemu-img."""
    return [QemuImageWriter]
