"""Snapshot: volumes as they were at one point in time.

All volumes of a snapshot are cut at the same point: no write that a guest was told completed
before it is missing, none that began after it is there, over all of them (as after a power
cut). A snapshot shares its blocks with the volume, takes what the volume overwrites since, and
stands for itself: clones are made from it, a volume can go back to it. It is cut on one node, and
kept on every node that has a replica of the volume: the others have the same bytes once they are
`complete`.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field, model_validator

from trivet.contracts.event import EventType
from trivet.contracts.model import Model, Name, ResourceId
from trivet.contracts.resource import Kind, Resource, Scope, Status


class SnapshotSpec(Model):
    """The volumes (same project) that are cut; they never change."""

    volumes: tuple[Name, ...] = Field(min_length=1, max_length=16)

    @model_validator(mode="after")
    def _coherent(self) -> SnapshotSpec:
        if len(set(self.volumes)) != len(self.volumes):
            raise ValueError("volumes: the same volume twice")
        return self


class SnapshotCopy(Model):
    """A part as it is kept on another node than the one where it was cut. It is `complete` once
    it has the same bytes; `used_bytes` None: not known yet."""

    node: str
    complete: bool = False
    used_bytes: int | None = None


class SnapshotPart(Model):
    """One volume of it, where it lies: on `node` (where it was cut, or what took that one's
    place), and `copies` beside the volume's other replicas. `used_bytes` counts blocks that are
    shared, too; None: not taken yet."""

    volume: ResourceId
    name: Name
    node: str
    pool: str
    size_bytes: int
    used_bytes: int | None = None
    copies: tuple[SnapshotCopy, ...] = ()

    @property
    def nodes(self) -> tuple[str, ...]:
        """Where it is, or is about to be, kept."""
        return (self.node, *(copy.node for copy in self.copies))

    @property
    def complete_on(self) -> tuple[str, ...]:
        """Where all of it is, once it is taken."""
        return (self.node, *(copy.node for copy in self.copies if copy.complete))

    def copy_on(self, node: str) -> SnapshotCopy | None:
        """The copy of a node."""
        return next((copy for copy in self.copies if copy.node == node), None)


class Consistency(StrEnum):
    """What guests make of it. `agent`: their file systems were written out and at rest. `crash`: as
    after a power cut. `offline`: nobody held the volumes."""

    AGENT = "agent"
    CRASH = "crash"
    OFFLINE = "offline"


class SnapshotStatus(Status):
    """`taken_at`: the point at which all parts were cut; None: not yet. `consistency` is not known
    of snapshots of before that was told."""

    parts: tuple[SnapshotPart, ...] = ()
    taken_at: datetime | None = None
    consistency: Consistency | None = None
    claimed_bytes: int = 0

    def part(self, volume: str) -> SnapshotPart | None:
        """The part of a volume, by its id."""
        return next((p for p in self.parts if p.volume == volume), None)


class Snapshot(Resource[SnapshotSpec, SnapshotStatus]):
    """Volumes at one point in time."""

    kind: str = "Snapshot"


SNAPSHOT_TAKEN = EventType("storage", "snapshot", "taken")


def _snapshot_events(before: Snapshot | None, after: Snapshot | None) -> tuple[EventType, ...]:
    had = before is not None and before.status.taken_at is not None
    has = after is not None and after.status.taken_at is not None
    return (SNAPSHOT_TAKEN,) if has and not had else ()


SNAPSHOT = Kind(
    Snapshot,
    "snapshot",
    "snapshots",
    "storage",
    Scope.PROJECT,
    "Volumes at one point in time",
    extra_events=_snapshot_events,
    extra_event_types=(SNAPSHOT_TAKEN,),
)
