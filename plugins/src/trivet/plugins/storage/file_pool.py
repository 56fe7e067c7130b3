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
import os
from dataclasses import dataclass
from pathlib import Path

from trivet.contracts.driver import DriverContext
from trivet.contracts.errors import DRIVER_FAILED, IN_USE, NOT_SUPPORTED, Fatal, Refused
from trivet.contracts.model import GIB, Model, ResourceId
from trivet.contracts.storage.codes import DISK_NOT_BLANK
from trivet.contracts.storage.engine import PoolOnNode
from trivet.contracts.storage.pool import PoolUsage
from trivet.plugins.storage.node_process import attempt, run
from trivet.plugins.storage.replica_file import PART_SUFFIX, can_clone, write_durably

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
    """One file system of a pool (or a folder on one); `mounted`: by us."""

    path: Path
    mounted: bool
    image: Path | None = None
    device: str | None = None

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

    def usage(self, node: str) -> PoolUsage:
        """Sizes over all roots."""
        stats = [os.statvfs(root.path) for root in self.roots]
        return PoolUsage(
            node=node,
            size_bytes=sum(s.f_blocks * s.f_frsize for s in stats),
            used_bytes=sum((s.f_blocks - s.f_bfree) * s.f_frsize for s in stats),
            reflink=self.reflink,
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
    for n, device in enumerate(pool.devices):
        await _format_if_blank(device, _label(pool.id))
        roots.append(Root(base / f"{pool.id}-{n}", mounted=True, device=device))
    if pool.member.path is not None:
        roots.append(Root(Path(pool.member.path) / pool.id, mounted=False))
    if not roots:
        raise Refused(
            NOT_SUPPORTED,
            f"pool {pool.name} has nothing on this node",
            hint="give the member `disks`, `file_gib` or `path`",
        )
    for root in roots:
        await _bring_up(root, pool.id)
        if root.image is not None and root.image.stat().st_size < grow_to:
            await _grow_image(root, grow_to)
    reflink = await asyncio.to_thread(lambda: all(can_clone(root.replicas) for root in roots))
    return OpenPool(pool.id, tuple(roots), reflink)


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
    return path.is_mount()
