"""Pool: space for volumes on one or more nodes, served by one volume engine."""

from __future__ import annotations

from pydantic import Field

from trivet.contracts.model import Model, Name
from trivet.contracts.resource import Kind, Resource, Scope, Status


class PoolMember(Model):
    """A node's part of a pool: on disks of that role, or on an image file of that size (the
    development default: `file_gib`), or in a folder that is already there (`path`)."""

    node: Name
    disks: tuple[Name, ...] = ()
    file_gib: int | None = Field(default=None, ge=1)
    path: str | None = Field(default=None, max_length=255, pattern=r"^/[!-~]*$")


class PoolSpec(Model):
    """`overcommit`: how many times its size may be promised to thin volumes."""

    engine: str = "auto"
    members: tuple[PoolMember, ...] = Field(min_length=1, max_length=64)
    overcommit: float = Field(default=2.0, ge=1, le=100)


class DiskUsage(Model):
    """Bytes of one disk of a member."""

    disk: Name
    size_bytes: int
    used_bytes: int


class PoolUsage(Model):
    """Bytes of a member. `used` is what is taken on disk, whoever took it. `disks`: those of its
    disks that are open; a member that is no disks but a file or a folder has none."""

    node: str
    size_bytes: int
    used_bytes: int
    reflink: bool = False
    disks: tuple[DiskUsage, ...] = ()

    def disk(self, name: str) -> DiskUsage | None:
        """One of its disks, if it is open."""
        return next((d for d in self.disks if d.disk == name), None)


class PoolStatus(Status):
    """The condition `Space` says whether there is room (`Enough`, `Filling`, `NearlyFull`,
    `PoolFull`), `Promised` whether more is promised than there is. `claimed_bytes` is what is
    promised to volumes, by compare-and-swap, before use."""

    usage: tuple[PoolUsage, ...] = ()
    claimed_bytes: int = 0
    engine: str | None = None


class Pool(Resource[PoolSpec, PoolStatus]):
    """Space for volumes."""

    kind: str = "Pool"


POOL = Kind(Pool, "pool", "pools", "storage", Scope.CLUSTER, "Space for volumes")
