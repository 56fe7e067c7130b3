"""Disk: a block device of a node, as its agent found it, and the role it was given."""

from __future__ import annotations

from enum import StrEnum

from trivet.contracts.model import Model
from trivet.contracts.resource import Kind, Resource, Scope, Status


class DiskRole(StrEnum):
    """`none`: not ours, never written to."""

    NONE = "none"
    DATA = "data"


class DiskFacts(Model):
    """What an inspector found. `device` is the path now, `serial` what tells the disk for
    ever; `holds` says what is on it ('' only when it was proven blank)."""

    device: str
    serial: str
    model: str = ""
    size_bytes: int
    rotational: bool | None = None
    holds: str = "unknown"


class DiskSpec(Model):
    """The role given to the disk; a disk that holds something takes none but `none`."""

    role: DiskRole = DiskRole.NONE


class DiskStatus(Status):
    """Where it is and what was found."""

    node: str | None = None
    facts: DiskFacts | None = None


class Disk(Resource[DiskSpec, DiskStatus]):
    """A block device of a node."""

    kind: str = "Disk"


DISK = Kind(Disk, "disk", "disks", "storage", Scope.CLUSTER, "A block device of a node")
