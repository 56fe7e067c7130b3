"""Volume: a replicated virtual disk. Attached by one holder at a time, under an epoch.

The epoch grows with every attach and is part of the name under which each replica is served,
so that an older holder finds its name gone: its writes fail, whatever it believes.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field, model_validator

from trivet.contracts.event import EventType
from trivet.contracts.model import GIB, Model, Name, ResourceId
from trivet.contracts.resource import Kind, Resource, Scope, Status
from trivet.contracts.storage.outlook import Outlook


class ReplicaState(StrEnum):
    """Whether a replica has every acknowledged write: only one in sync has. `stale` misses some
    and can be brought back, `rebuilding` is being copied to, `lost` is not there any more,
    `leaving` is not needed any more and goes."""

    CREATING = "creating"
    IN_SYNC = "in_sync"
    STALE = "stale"
    REBUILDING = "rebuilding"
    LOST = "lost"
    LEAVING = "leaving"


class Missing(StrEnum):
    """What a replica needs to be brought back. `changes`: what the graph that it left has
    recorded since its last checkpoint. `differences`: what a comparison with a good one finds.
    `all`: everything."""

    NOTHING = "nothing"
    CHANGES = "changes"
    DIFFERENCES = "differences"
    ALL = "all"


class CloneMode(StrEnum):
    """`linked` shares unchanged blocks with its source, `full` shares none."""

    FULL = "full"
    LINKED = "linked"


class Qos(Model):
    """Bounds of what a volume takes; None: unbounded. They change live."""

    iops: int | None = Field(default=None, ge=10, le=10_000_000)
    bytes_per_s: int | None = Field(default=None, ge=65536, le=2**40)


class VolumeSource(Model):
    """What a new volume begins as (same project): a volume as it is now, or as it was in a
    snapshot (`volume` then says which of the snapshot's, where it has several)."""

    volume: Name | None = None
    snapshot: Name | None = None
    mode: CloneMode = CloneMode.LINKED

    @model_validator(mode="after")
    def _coherent(self) -> VolumeSource:
        if self.volume is None and self.snapshot is None:
            raise ValueError("a volume or a snapshot must be named")
        return self


class VolumeSpec(Model):
    """What is asked of a volume. It can grow, and never shrinks."""

    size_gib: int = Field(ge=1, le=65536)
    replicas: int = Field(default=1, ge=1, le=3)
    pool: Name | None = None
    thin: bool = True
    source: VolumeSource | None = None
    nodes: tuple[Name, ...] = ()
    qos: Qos = Qos()

    @property
    def size_bytes(self) -> int:
        """The size in bytes."""
        return self.size_gib * GIB

    @model_validator(mode="after")
    def _coherent(self) -> VolumeSpec:
        if len(set(self.nodes)) != len(self.nodes):
            raise ValueError("nodes: the same node twice")
        return self


class Graph(Model):
    """One making of a volume's block graph: the `number`th of an epoch. What a graph knows about
    a replica that left it ends with it."""

    epoch: int
    number: int


class Progress(Model):
    """How far a replica is brought back, as of some time ago (it is told in steps of 5 %), and
    how long the rest takes at the pace until then."""

    done_bytes: int
    total_bytes: int
    left_s: float


class Replica(Model):
    """One copy: where it is, whether it may be trusted, and why. `size_bytes` 0: not made yet.

    `since`: when it came into its state. `missing`: what it needs to be in sync (one that is made
    with `all` is stale when it is made); `changes` only holds while the graph that it `left` lives.
    `suspect`: in sync, but what was on the way when a graph died may differ from the other
    replicas: it serves no read until it was compared; `left` is then the graph that was made over
    another one. `boot`: the run of its node's kernel when it was last taken into a graph.
    `disk`: the disk it lies on, or its pool where the node's part of that is no disks. `barred`
    says why it is not to be brought back where it is ('': it may be). `moving`: why it is wanted
    elsewhere ('': it is not); it stays until another is in sync in its place. `progress`: how
    far it is copied to or compared, while it is.
    """

    node: str
    disk: str
    state: ReplicaState
    reason: str = ""
    size_bytes: int = 0
    used_bytes: int | None = None
    since: datetime | None = None
    missing: Missing = Missing.NOTHING
    left: Graph | None = None
    suspect: bool = False
    boot: str = ""
    barred: str = ""
    moving: str = ""
    progress: Progress | None = None


class Attachment(Model):
    """Who holds the volume and where; `socket` and `export` are how its node reaches it, once
    it is attached there with `size_bytes`. Socket and export stay as they are for the whole
    epoch: a graph that broke is made again behind them, as the next in `number`. `detaching`:
    the holder let go, the graph is still to be ended. `starved` says why writes find no space now
    ('': they do). `run`: the run of the holder that it was made for, if that was told."""

    holder: str
    node: str
    epoch: int
    run: int | None = None
    number: int = 0
    socket: str | None = None
    export: str | None = None
    size_bytes: int = 0
    detaching: bool = False
    starved: str = ""


class Scrub(Model):
    """`at`: when all replicas were last read and compared to the end; `offset_bytes`: how far the
    present one is; `asked`: somebody wants one soon; `found_blocks`: how many were ever wrong."""

    at: datetime | None = None
    offset_bytes: int = 0
    asked: bool = False
    found_blocks: int = 0


class VolumeStatus(Status):
    """`epoch` is the last one given out, attached or not. `source` is the volume that
    `spec.source` named when this one was made, as it was in `source_snapshot` if that is set;
    `reverting` the snapshot that its content is being replaced by; `size_bytes` what all
    replicas have, and `claimed_bytes` what is promised to each: a replica grows no further.
    `unclean`: a graph was made (or is about to be) that has not ended in order. `outlook`: what
    the failure of each of its hosts and disks would do now; it is told, and never stored."""

    pool: str | None = None
    source: ResourceId | None = None
    source_snapshot: ResourceId | None = None
    reverting: ResourceId | None = None
    size_bytes: int = 0
    claimed_bytes: int = 0
    epoch: int = 0
    unclean: bool = False
    replicas: tuple[Replica, ...] = ()
    attachment: Attachment | None = None
    outlook: tuple[Outlook, ...] = ()
    scrub: Scrub = Scrub()


class Volume(Resource[VolumeSpec, VolumeStatus]):
    """A virtual disk."""

    kind: str = "Volume"


VOLUME_ATTACHED = EventType("storage", "volume", "attached")
VOLUME_DETACHED = EventType("storage", "volume", "detached")


def _volume_events(before: Volume | None, after: Volume | None) -> tuple[EventType, ...]:
    had = bool(before and before.status.attachment and before.status.attachment.socket)
    has = bool(after and after.status.attachment and after.status.attachment.socket)
    if has and not had:
        return (VOLUME_ATTACHED,)
    if had and not has:
        return (VOLUME_DETACHED,)
    return ()


VOLUME = Kind(
    Volume,
    "volume",
    "volumes",
    "storage",
    Scope.PROJECT,
    "A replicated virtual disk",
    extra_events=_volume_events,
    extra_event_types=(VOLUME_ATTACHED, VOLUME_DETACHED),
    takes=lambda volume: {"volumes": 1, "volumes_gib": volume.spec.size_gib},
)
