"""Builds a cloud image as clouds have it: Debian with systemd, cloud-init and a cloud kernel.

It takes minutes and the distribution's mirror, so only long campaigns ask for it. Everything is
done on files and in a chroot: no loop device, nothing mounted.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from trivet.host.tiny_image import SECTOR_BYTES

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = (
    *("cloud-init", "linux-image-cloud-amd64", "systemd-sysv", "udev", "dbus"),
    *("iproute2", "ifupdown", "netbase", "qemu-guest-agent"),
)
BOOT_START_SECTOR, BOOT_MIB, ROOT_MIB = 2048, 128, 1800
MIB_BYTES = 1024 * 1024
MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")
KERNEL_ARGUMENTS = (
    "root=/dev/vda2 ro console=ttyS0 net.ifnames=0 mitigations=off tsc=reliable"
    # Under translation everything takes its time; nothing is hung.
    " quiet apparmor=0 systemd.service_watchdogs=no systemd.default_timeout_start_sec=1800"
)

FILES = {
    "etc/fstab": "/dev/vda2 / ext4 errors=remount-ro 0 1\n",
    "etc/cloud/cloud.cfg.d/90_dpkg.cfg": "datasource_list: [ NoCloud, None ]\n",
    # Only what such a guest boots from: a small initramfs is unpacked sooner under translation.
    "etc/initramfs-tools/conf.d/small": "MODULES=list\nCOMPRESS=gzip\n",
    "etc/initramfs-tools/modules": "virtio_pci\nvirtio_blk\next4\n",
    "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
}


def build(out: Path, work: Path) -> Path:
    """Make a qcow2 at `out` in the folder `work`, which is left with what it took."""
    root = work / "root"
    _run("debootstrap", "--variant=minbase", SUITE, str(root), MIRROR)
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name.endswith("policy-rc.d") else 0o644)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    install = f"apt-get -qq install -y --no-install-recommends {' '.join(PACKAGES)}"
    _run("chroot", str(root), "sh", "-ec", f"export DEBIAN_FRONTEND=noninteractive; {install}")
    return pack(out, work, root)


def pack(out: Path, work: Path, root: Path) -> Path:
    """The image of a root file system that has a kernel in /boot."""
    for leftover in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / leftover, ignore_errors=True)
    (root / "etc/machine-id").write_text("")
    (root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    (initrd,) = (root / "boot").glob("initrd.img-*")
    disk, inner = work / "disk.raw", work / "root.ext4"
    boot_sectors = BOOT_MIB * MIB_BYTES // SECTOR_BYTES
    offset = BOOT_START_SECTOR * SECTOR_BYTES
    inner.unlink(missing_ok=True)
    _run("mkfs.ext4", "-q", "-d", str(root), str(inner), f"{ROOT_MIB}M")
    root_start = BOOT_START_SECTOR + boot_sectors
    with disk.open("wb") as file:
        file.write(_first_sector(boot_sectors, root_start))
        file.truncate(root_start * SECTOR_BYTES + ROOT_MIB * MIB_BYTES)
    config = work / "syslinux.cfg"
    config.write_text(
        "DEFAULT linux\nLABEL linux\n  KERNEL /LINUX\n  INITRD /INITRD\n"
        f"  APPEND {KERNEL_ARGUMENTS}\n"
    )
    hidden = ("-h", str(BOOT_START_SECTOR), "--offset", str(BOOT_START_SECTOR))
    _run("mkfs.vfat", "-F", "16", *hidden, str(disk), str(BOOT_MIB * 1024))
    for source, name in ((kernel, "LINUX"), (initrd, "INITRD"), (config, "SYSLINUX.CFG")):
        _run("mcopy", "-i", f"{disk}@@{offset}", str(source), f"::{name}")
    _run("syslinux", "--install", "--offset", str(offset), str(disk))
    seek = root_start * SECTOR_BYTES // MIB_BYTES
    copy = ("bs=1M", f"seek={seek}", "conv=notrunc,sparse", "status=none")
    _run("dd", f"if={inner}", f"of={disk}", *copy)
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", str(disk), str(out))
    return out


def _first_sector(boot_sectors: int, root_start: int) -> bytes:
    """A master boot record with an active FAT and a Linux partition."""

    def entry(active: int, kind: int, start: int, sectors: int) -> bytes:
        no_chs = b"\xfe\xff\xff"
        place = start.to_bytes(4, "little") + sectors.to_bytes(4, "little")
        return bytes([active]) + no_chs + bytes([kind]) + no_chs + place

    boot = entry(0x80, 0x0C, BOOT_START_SECTOR, boot_sectors)
    root = entry(0, 0x83, root_start, ROOT_MIB * MIB_BYTES // SECTOR_BYTES)
    return MBR.read_bytes()[:440].ljust(446, b"\0") + boot + root + bytes(32) + b"\x55\xaa"


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{argv[0]} failed: {done.stdout[-800:]} {done.stderr[-800:]}")
