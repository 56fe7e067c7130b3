"""Builds the tiny guest: a bootable disk image of a real Linux, from the distribution's packages.

It is what first steps, tests and benchmarks boot, so it must be small, start fast under
translation and show that the platform works: it takes an address by DHCP, keeps data over
restarts, counts its boots, answers HTTP and echo, and obeys the power button. Kernel and modules
come from the newest cloud kernel package, the rest is one static busybox. Everything is done
on files: nothing is mounted, no loop device is used, no privilege is needed but apt's.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from trivet.host import tiny_agent, tiny_guest

Progress = Callable[[str], None]

PACKAGES = (
    "busybox-static",
    "cpio",
    "dosfstools",
    "kmod",
    "mtools",
    "syslinux",
    "syslinux-common",
    "syslinux-efi",
)
"""What must be installed to build the image."""

IMAGE_MIB = 64
BOOT_START_SECTOR = 2048
BOOT_MIB = 24
SECTOR_BYTES = 512
_BUSYBOX = (Path("/bin/busybox"), Path("/usr/bin/busybox"))
_EFI_LOADER = Path("/usr/lib/SYSLINUX.EFI/efi64/syslinux.efi")
_EFI_MODULE = Path("/usr/lib/syslinux/modules/efi64/ldlinux.e64")
_MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")
_COMMAND_S = 120
_KERNEL_PACKAGE = re.compile(r"^linux-image-\d\S*-cloud-amd64$")


class BuildFailed(Exception):
    """The image could not be built; the message says why and what to do."""


def build(out: Path, work: Path, progress: Progress) -> Path:
    """Make the image at `out`, a raw disk of 64 MiB; returns `out`.

    `work` keeps the last image built, by the versions of all that goes into it: if nothing has
    changed it is only copied. Raises `BuildFailed`.
    """
    _check_tools()
    package, version = _known_kernel(progress)
    key = _cache_key(package, version)
    kept = work / f"tiny-{key}.raw"
    if not kept.exists():
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=work) as folder:
            made = _build(Path(folder), package, version, progress)
            for older in work.glob("tiny-*.raw"):
                older.unlink()
            made.rename(kept)
    out.parent.mkdir(parents=True, exist_ok=True)
    _run("cp", "--sparse=always", "--reflink=auto", str(kept), str(out))
    return out


def _build(folder: Path, package: str, version: str, progress: Progress) -> Path:
    progress(f"fetching {package} {version}")
    _run("apt-get", "-qq", "download", f"{package}={version}", cwd=folder)
    (archive,) = folder.glob("*.deb")
    tree = folder / "tree"
    _run("dpkg-deb", "-x", str(archive), str(tree))
    # Debian's /lib is a link to /usr/lib where packages are merged; modprobe looks in /lib.
    if not (tree / "lib").exists():
        (tree / "lib").symlink_to("usr/lib")
    (kernel,) = (tree / "boot").glob("vmlinuz-*")
    release = kernel.name.removeprefix("vmlinuz-")
    progress(f"packing the guest with Linux {release}")
    initramfs = _initramfs(folder, tree, release)
    return _disk(folder, kernel, initramfs)


def _initramfs(folder: Path, tree: Path, release: str) -> Path:
    root = folder / "root"
    for name in tiny_guest.FOLDERS:
        (root / name).mkdir(parents=True)
    shutil.copy(_busybox(), root / "bin/busybox")
    order = []
    _run("depmod", "-b", str(tree), release)
    for module in _modules(tree, release):
        name = re.sub(r"\.(xz|gz|zst)$", "", module.name)
        (root / "modules" / name).write_bytes(_plain(module))
        order.append(name)
    (root / "modules/order").write_text("\n".join(order) + "\n")
    for path, text in tiny_guest.FILES.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)
    try:
        tiny_agent.add(root, folder, _run)
    except LookupError as e:
        raise BuildFailed(str(e)) from e
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    listing = ("\n".join(names) + "\n").encode()
    archive = _run("cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0", cwd=root, stdin=listing)
    packed = folder / "initramfs.gz"
    packed.write_bytes(gzip.compress(archive, 6, mtime=0))
    return packed


def _modules(tree: Path, release: str) -> list[Path]:
    """The module files that the guest's hardware needs, in the order of loading."""
    files: dict[Path, None] = {}
    for module in tiny_guest.MODULES:
        argv = ("modprobe", "-d", str(tree), "-S", release, "--show-depends", module)
        for line in _run(*argv).decode().splitlines():
            verb, _, path = line.strip().partition(" ")
            if verb == "insmod":
                files[Path(path.split()[0])] = None
    return list(files)


def _plain(module: Path) -> bytes:
    """The module itself, whichever way the distribution has packed it."""
    unpack = {".xz": "xz", ".gz": "gzip", ".zst": "zstd"}.get(module.suffix)
    return _run(unpack, "-dc", str(module)) if unpack else module.read_bytes()


def _disk(folder: Path, kernel: Path, initramfs: Path) -> Path:
    """A disk with a boot sector, one FAT partition with the guest, and room behind it. BIOS and
    UEFI both boot from it."""
    disk = folder / "disk.raw"
    offset = BOOT_START_SECTOR * SECTOR_BYTES
    with disk.open("wb") as file:
        file.write(_first_sector())
        file.truncate(IMAGE_MIB * 1024 * 1024)
    config = folder / "syslinux.cfg"
    config.write_text(tiny_guest.SYSLINUX)
    _run(
        *("mkfs.vfat", "-n", "TRIVET", "-i", "54524956", "--invariant"),
        *("-h", str(BOOT_START_SECTOR), "--offset", str(BOOT_START_SECTOR), str(disk)),
        str(BOOT_MIB * 1024),
    )
    place = f"{disk}@@{offset}"
    _run("mmd", "-i", place, "::EFI", "::EFI/BOOT")
    for source, name in (
        *((kernel, "LINUX"), (initramfs, "INITRD.GZ"), (config, "SYSLINUX.CFG")),
        *((_EFI_LOADER, "EFI/BOOT/BOOTX64.EFI"), (_EFI_MODULE, "EFI/BOOT/LDLINUX.E64")),
    ):
        _run("mcopy", "-i", place, str(source), f"::{name}")
    _run("syslinux", "--install", "--offset", str(offset), str(disk))
    return disk


def _first_sector() -> bytes:
    """The master boot record: code, and one active FAT partition by its sector numbers."""
    code = _MBR.read_bytes()[:440].ljust(446, b"\0")
    no_chs = b"\xfe\xff\xff"
    entry = (
        b"\x80"
        + no_chs
        + b"\x0c"
        + no_chs
        + BOOT_START_SECTOR.to_bytes(4, "little")
        + (BOOT_MIB * 1024 * 1024 // SECTOR_BYTES).to_bytes(4, "little")
    )
    return code + entry + bytes(3 * 16) + b"\x55\xaa"


def _known_kernel(progress: Progress) -> tuple[str, str]:
    """The newest cloud kernel; a machine without apt's lists (a container) gets them first."""
    try:
        return _newest_kernel()
    except BuildFailed:
        progress("fetching apt's package lists")
        _run("apt-get", "-qq", "update")
        return _newest_kernel()


def _newest_kernel() -> tuple[str, str]:
    """The package of the newest cloud kernel that apt knows, and its version."""
    said = _run("apt-cache", "depends", "--important", "linux-image-cloud-amd64").decode()
    for line in said.splitlines():
        name = line.strip().removeprefix("Depends: ")
        if _KERNEL_PACKAGE.match(name):
            shown = _run("apt-cache", "show", "--no-all-versions", name).decode()
            for field in shown.splitlines():
                if field.startswith("Version: "):
                    return name, field.removeprefix("Version: ")
    raise BuildFailed("apt knows no linux-image-cloud-amd64: run `apt-get update`")


def _cache_key(package: str, version: str) -> str:
    """Changes with everything that goes into an image."""
    digest = hashlib.sha256(f"{package} {version} {IMAGE_MIB} {BOOT_MIB}".encode())
    sources = (Path(__file__), Path(tiny_guest.__file__), Path(tiny_agent.__file__))
    for path in (_busybox(), _MBR, *sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _busybox() -> Path:
    for path in _BUSYBOX:
        if path.exists():
            return path
    raise BuildFailed("busybox is not installed: apt-get install busybox-static")


def _check_tools() -> None:
    tools = ("apt-get", "depmod", "modprobe", "cpio", "mkfs.vfat", "mcopy", "syslinux")
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    missing = [tool for tool in tools if shutil.which(tool, path=path) is None]
    files = (_MBR, _EFI_LOADER, _EFI_MODULE)
    missing += [str(file) for file in files if not file.exists()]
    if missing:
        raise BuildFailed(f"{', '.join(missing)} is missing: apt-get install {' '.join(PACKAGES)}")


def _run(*argv: str, cwd: Path | None = None, stdin: bytes | None = None) -> bytes:
    """The output of a command. Raises `BuildFailed` with what it said."""
    environment = {
        **os.environ,
        "LC_ALL": "C",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "MTOOLS_SKIP_CHECK": "1",
    }
    try:
        done = subprocess.run(
            argv, cwd=cwd, input=stdin, capture_output=True, timeout=_COMMAND_S, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise BuildFailed(f"{argv[0]}: {e}") from e
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise BuildFailed(f"{' '.join(argv[:3])} failed: {said[-500:]}")
    return done.stdout
