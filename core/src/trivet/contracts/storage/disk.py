"""Disk: a block device of a node, as its agent found it, and the role it was given."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from trivet.contracts.model import Model
from trivet.contracts.resource import Kind, Resource, Scope, Status


class DiskRole(StrEnum):
    """`none`: not ours, never written to. `spare`: takes the place of a data disk of its node
    that fails, by itself."""

    NONE = "none"
    DATA = "data"
    SPARE = "spare"


class DiskHealth(StrEnum):
    """How a disk does. `warned` is told and works on; what is on an `isolated` one is moved away
    and nothing new comes to it; what is on a `failed` one is taken for lost; a `missing` one may
    come back."""

    OK = "ok"
    WARNED = "warned"
    ISOLATED = "isolated"
    FAILED = "failed"
    MISSING = "missing"


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
    """The role given to the disk; a disk that holds something takes none but `none`. `isolated`:
    somebody wants it empty: what lies on it is moved away, nothing new comes to it."""

    role: DiskRole = DiskRole.NONE
    isolated: bool = False


class DiskStatus(Status):
    """Where it is and what was found; `health` as it was judged, and `why`, since when.
    `answers` false: it does not now, and nobody waits for what lies on it. `replaced_by`: the
    spare that took its place; `rotten_blocks`: how many a scrub ever found wrong on it, though it
    had reported no error; `rewritten_blocks`: how many it could not give back and were written
    again from another replica."""

    node: str | None = None
    facts: DiskFacts | None = None
    health: DiskHealth = DiskHealth.OK
    why: str = ""
    health_since: datetime | None = None
    answers: bool = True
    replaced_by: str | None = None
    rotten_blocks: int = 0
    rewritten_blocks: int = 0


class Disk(Resource[DiskSpec, DiskStatus]):
    """A block device of a node."""

    kind: str = "Disk"


DISK = Kind(Disk, "disk", "disks", "storage", Scope.CLUSTER, "A block device of a node")
