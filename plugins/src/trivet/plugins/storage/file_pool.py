"""The file systems under a pool on this node: made once, mounted when needed, found again.

A member is an image file with XFS on it (for development and single machines), a blank disk
that becomes XFS, or a folder that is there already. Nothing is formatted that is not proven
blank, and each root carries a marker with the pool's id, so that a disk of another pool, or a
mount point whose disk is missing, is never taken for ours. Image files are formatted under
another name and renamed: one that has its name is whole. Loop devices clear themselves when
they are unmounted.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from trivet.contracts.driver import DriverContext
from trivet.contracts.errors import DRIVER_FAILED, IN_USE, NOT_SUPPORTED, Fatal, Refused, Retry
from trivet.contracts.model import GIB, Model, ResourceId
from trivet.contracts.storage.codes import DISK_NOT_BLANK, NOT_READY
from trivet.contracts.storage.engine import PoolOnNode
from trivet.contracts.storage.pool import DiskUsage, PoolUsage
from trivet.plugins.storage.node_process import attempt, run
from trivet.plugins.storage.replica_file import PART_SUFFIX, can_clone, write_durably

log = logging.getLogger(__name__)

MARKER = "trivet-pool.json"
REPLICAS = "replicas"
SNAPSHOTS = "snapshots"
BLANK = 2
"""What `blkid -p` ends with when it finds nothing on a device."""
MKFS = ("mkfs.xfs", "-q", "-m", "reflink=1")


class Marker(Model):
    """What a root says of itself."""

    pool: ResourceId


@dataclass(frozen=True)
class Root:
    """One file system of a pool (or a folder on one); `mounted`: by us; `disk`: the name of the
    disk that `device` is."""

    path: Path
    mounted: bool
    image: Path | None = None
    device: str | None = None
    disk: str = ""

    @property
    def replicas(self) -> Path:
        """The folder of its replicas."""
        return self.path / REPLICAS

    @property
    def snapshots(self) -> Path:
        """The folder of its snapshots."""
        return self.path / SNAPSHOTS

    def free_bytes(self) -> int:
        """What can still be written."""
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize


@dataclass(frozen=True)
class OpenPool:
    """A pool that is usable on this node."""

    id: ResourceId
    roots: tuple[Root, ...]
    reflink: bool

    def root(self, disk: str) -> Root:
        """The file system on one of its disks."""
        for root in self.roots:
            if root.disk == disk:
                return root
        detail = f"disk {disk} of pool {self.id} is not open"
        raise Retry(NOT_READY, detail, retry_after_s=2.0)

    def lacks(self, pool: PoolOnNode) -> bool:
        """Whether a disk that is there could not be used when the pool was opened."""
        return sum(bool(root.disk) for root in self.roots) < sum(map(bool, pool.devices))

    def usage(self, node: str) -> PoolUsage:
        """Sizes over all roots, and of each disk."""
        stats = [os.statvfs(root.path) for root in self.roots]
        sizes = [s.f_blocks * s.f_frsize for s in stats]
        used = [(s.f_blocks - s.f_bfree) * s.f_frsize for s in stats]
        return PoolUsage(
            node=node,
            size_bytes=sum(sizes),
            used_bytes=sum(used),
            reflink=self.reflink,
            disks=tuple(
                DiskUsage(disk=root.disk, size_bytes=sizes[n], used_bytes=used[n])
                for n, root in enumerate(self.roots)
                if root.disk
            ),
        )


async def open_file_pool(context: DriverContext, pool: PoolOnNode) -> OpenPool:
    """Make the pool's file systems, where they are not there, and mount them."""
    base = context.state_dir / "pools"
    base.mkdir(exist_ok=True)
    roots: list[Root] = []
    grow_to = 0
    if pool.member.file_gib is not None:
        image = base / f"{pool.id}.img"
        if not image.exists():
            await _make_image(image, pool.member.file_gib * GIB)
        roots.append(Root(base / pool.id, mounted=True, image=image))
        grow_to = pool.member.file_gib * GIB
    disks = await _disk_roots(base, pool)
    roots.extend(disks)
    if pool.member.path is not None:
        roots.append(Root(Path(pool.member.path) / pool.id, mounted=False))
    if not roots:
        raise Refused(
            NOT_SUPPORTED,
            f"pool {pool.name} has nothing on this node",
            hint="give the member `disks`, `file_gib` or `path`",
        )
    for root in roots:
        if root.disk:
            continue
        await _bring_up(root, pool.id)
        if root.image is not None and root.image.stat().st_size < grow_to:
            await _grow_image(root, grow_to)
    reflink = await asyncio.to_thread(lambda: all(can_clone(root.replicas) for root in roots))
    return OpenPool(pool.id, tuple(roots), reflink)


async def _disk_roots(base: Path, pool: PoolOnNode) -> list[Root]:
    """The disks of the pool that can be used now. One that is not there, or fails, is left out,
    for the others are good without it; what was mounted of it is let go of."""
    roots: list[Root] = []
    for disk, device in zip(pool.member.disks, pool.devices, strict=True):
        root = Root(base / f"{pool.id}-{disk}", mounted=True, device=device, disk=disk)
        why = await _trouble(root, pool.id) if device else "it is not there"
        if not why:
            roots.append(root)
            continue
        log.warning("pool %s goes without disk %s: %s", pool.name, disk, why)
        if _is_mount(root.path):
            await attempt("umount", "--lazy", str(root.path))
    if pool.member.disks and not roots:
        detail = f"pool {pool.name}: none of its disks can be used: {', '.join(pool.member.disks)}"
        raise Retry(NOT_READY, detail, retry_after_s=5.0)
    return roots


async def _trouble(root: Root, pool: ResourceId) -> str:
    """Bring a disk up; why that can't be ('': it is up)."""
    try:
        await _format_if_blank(root.device or "", _label(pool))
        await _bring_up(root, pool)
        await asyncio.to_thread(os.listdir, root.replicas)
    except (OSError, Fatal, Retry) as error:
        return str(error)
    return ""


async def close_file_pool(pool: OpenPool, *, destroy: bool) -> None:
    """Unmount what we mounted; with `destroy` also remove what we made."""
    for root in pool.roots:
        if destroy:
            for folder in (root.replicas, root.snapshots):
                if any(folder.iterdir()):
                    raise Refused(IN_USE, f"pool {pool.id} still has something in {folder}")
            root.replicas.rmdir()
            root.snapshots.rmdir()
            (root.path / MARKER).unlink(missing_ok=True)
        if root.mounted:
            await _unmount(root.path)
            root.path.rmdir()
        elif destroy:
            root.path.rmdir()
        if destroy and root.image is not None:
            root.image.unlink(missing_ok=True)
        if destroy and root.device is not None:
            await run("wipefs", "--quiet", "--all", "--types", "xfs", root.device)


async def _make_image(image: Path, size_bytes: int) -> None:
    part = image.with_name(image.name + PART_SUFFIX)
    part.unlink(missing_ok=True)
    with part.open("xb") as file:
        file.truncate(size_bytes)
    try:
        await run(*MKFS, "-f", str(part))
        with part.open("rb+") as file:
            os.fsync(file.fileno())
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.rename(image)


async def _grow_image(root: Root, size_bytes: int) -> None:
    """Make a mounted image larger: the file, its loop device, then the file system."""
    os.truncate(str(root.image), size_bytes)
    device = (await run("findmnt", "-n", "-o", "SOURCE", str(root.path))).strip()
    await run("losetup", "--set-capacity", device)
    await run("xfs_growfs", str(root.path))


async def _format_if_blank(device: str, label: str) -> None:
    """Make XFS on a device that is proven blank; leave one that bears our label as it is."""
    probe = await attempt("blkid", "-p", "-o", "export", device)
    found = dict(line.split("=", 1) for line in probe.stdout.splitlines() if "=" in line)
    if found.get("TYPE") == "xfs" and found.get("LABEL") == label:
        return
    if probe.code != BLANK or probe.stdout.strip():
        what = found.get("TYPE") or found.get("PTTYPE") or probe.stderr or "something unknown"
        raise Refused(DISK_NOT_BLANK, f"{device} holds {what}", hint="wipe it, or take another")
    await run(*MKFS, "-L", label, device)


def _label(pool: ResourceId) -> str:
    """An XFS label (at most 12 characters) that only disks of this pool bear."""
    return f"tv{pool[-10:]}"


async def _bring_up(root: Root, pool: ResourceId) -> None:
    if root.mounted:
        root.path.mkdir(exist_ok=True)
        if not _is_mount(root.path):
            if any(root.path.iterdir()):
                raise Fatal(DRIVER_FAILED, f"{root.path} is not mounted and not empty")
            source = str(root.image or root.device)
            options = "discard,loop" if root.image else "discard"
            await run("mount", "-t", "xfs", "-o", options, source, str(root.path))
    else:
        root.path.mkdir(parents=True, exist_ok=True)
    marker = root.path / MARKER
    if marker.exists():
        found = Marker.model_validate_json(marker.read_bytes())
        if found.pool != pool:
            raise Refused(DISK_NOT_BLANK, f"{root.path} belongs to pool {found.pool}")
    else:
        await asyncio.to_thread(write_durably, marker, Marker(pool=pool).model_dump_json().encode())
    for folder in (root.replicas, root.snapshots):
        folder.mkdir(exist_ok=True)
        for part in folder.glob(f"*{PART_SUFFIX}"):
            part.unlink(missing_ok=True)


async def _unmount(path: Path) -> None:
    if not _is_mount(path):
        return
    outcome = await attempt("umount", str(path))
    if outcome.code != 0 and _is_mount(path):
        raise Refused(IN_USE, f"{path} can't be unmounted: {outcome.stderr}")


def is_whole(pool: OpenPool) -> bool:
    """Whether all that was mounted for the pool still is."""
    return all(_is_mount(root.path) for root in pool.roots if root.mounted)


def _is_mount(path: Path) -> bool:
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    except OSError:  # a file system whose disk failed answers with errors, and no mount point does
        return True
    return os.path.ismount(path)
