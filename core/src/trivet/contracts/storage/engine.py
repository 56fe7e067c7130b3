"""The law for volume engines: what keeps replicas on one node and attaches volumes there.

A replica is served under an export named by its epoch and by what tells one start of its server
from every other (`<volume id>.e<epoch>.<session>`): ending the server fences whoever held it,
and one that starts again is nobody's that was connected before. A volume is attached on the node
of its holder: one block graph over its replicas, shown as NBD on a unix socket. What an engine
keeps it also records beside the thing (id, size, epoch, generation), and `replicas()` reads those
records back. The servers and the attached graphs outlive the service that started them:
`open()` finds them again. Looks that name a volume cost the same however many others there are.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

from trivet.contracts.driver import Driver
from trivet.contracts.errors import INVALID, Refused
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.storage.pool import PoolMember, PoolUsage
from trivet.contracts.storage.volume import Qos


class PoolOnNode(Model):
    """A node's part of a pool; `devices` are the device paths of the member's disks, in their
    order, '' for one that is not found now: the pool is open without it."""

    id: ResourceId
    name: str
    member: PoolMember
    devices: tuple[str, ...] = ()


class ReplicaSpec(Model):
    """A replica to be kept in a pool of this node. `source` is the volume whose replica in
    the same pool it begins as a copy of, as it was in `snapshot` if that is set (`linked`: sharing
    blocks, where the pool can, which a preallocated one never does). `disk`: which of the
    member's disks it lies on, beside its source if it has one; '': any."""

    volume: ResourceId
    pool: ResourceId
    size_bytes: int
    generation: int
    thin: bool = True
    source: ResourceId | None = None
    snapshot: ResourceId | None = None
    linked: bool = True
    disk: str = ""


class ReplicaRecord(Model):
    """A replica as found on the node. `epoch` is the highest it was ever served under, `floor`
    the lowest that it can still be served under; `serving` the epoch it is served under now;
    `disk` where it lies, '' in a member without disks."""

    volume: ResourceId
    pool: ResourceId
    size_bytes: int
    generation: int
    epoch: int = 0
    floor: int = 0
    used_bytes: int = 0
    serving: int | None = None
    complete: bool = True
    disk: str = ""


class ServedReplica(Model):
    """How a served replica is reached: a unix socket for its own node, host and port for others.
    `node` is where it lies, `boot` the run of that node's kernel: what was written and not flushed
    is gone when it is another; `blank`: nothing was written to it before this server.
    `size_bytes` 0: not told."""

    volume: ResourceId
    epoch: int
    export: str
    socket: str
    host: str | None = None
    port: int | None = None
    node: str = ""
    boot: str = ""
    blank: bool = False
    size_bytes: int = 0


class AttachSpec(Model):
    """A volume to be attached on this node: its in-sync replicas, the local one first. A
    preallocated one (`thin` false) keeps its space: discards do not reach its replicas.

    `slots`: how many replicas the graph has room for (0: it is never to have more than the one
    it is made with, `Replication` does not apply to it); `writes_only`: the nodes whose replicas
    serve no read in it. `number`: which graph of its epoch this is."""

    volume: ResourceId
    epoch: int
    size_bytes: int
    replicas: tuple[ServedReplica, ...]
    thin: bool = True
    qos: Qos = Qos()
    slots: int = 0
    writes_only: frozenset[str] = frozenset()
    number: int = 0


def check_attachable(spec: AttachSpec) -> None:
    """Raises `Refused(INVALID)` for what no engine attaches."""
    nodes = {replica.node for replica in spec.replicas}
    if not spec.replicas:
        raise Refused(INVALID, f"{spec.volume} can't be attached without a replica")
    if len(spec.replicas) > max(spec.slots, 1):
        have = f"{len(spec.replicas)} replicas and {spec.slots} slots"
        raise Refused(INVALID, f"{spec.volume} can't be attached with {have}")
    if spec.slots and (len(nodes) < len(spec.replicas) or "" in nodes):
        raise Refused(INVALID, f"the replicas of {spec.volume} are not on nodes of their own")
    if spec.slots and nodes <= spec.writes_only:
        raise Refused(INVALID, f"no replica of {spec.volume} would serve reads")


class MemberState(StrEnum):
    """What a replica in a graph is good for: `reads` and writes, `writes` only, or `failed`: its
    connection is gone, and no write is acknowledged until it is dropped."""

    READS = "reads"
    WRITES = "writes"
    FAILED = "failed"


class AttachedVolume(Model):
    """A volume attached on this node; `healthy` false: its graph is there but broken beyond
    mending, and nothing is known of its size and bounds. `members`: the replicas in a graph
    with slots, by node; `free_slots` hold placeholders. `changed_bytes`: what was written since the
    last checkpoint. `number`: as it was asked to be attached."""

    volume: ResourceId
    epoch: int
    socket: str
    export: str
    healthy: bool = True
    size_bytes: int = 0
    qos: Qos = Qos()
    slots: int = 0
    members: dict[str, MemberState] = {}
    changed_bytes: int = 0
    number: int = 0

    @property
    def free_slots(self) -> int:
        """How many more replicas can be admitted."""
        return self.slots - len(self.members)


class VolumeEngine(Driver, Protocol):
    """Keeps replicas and attaches volumes on this node.

    All acts are idempotent. `create` of what is there alike does nothing, and a create that
    was cut is found incomplete and begun anew. `serve` with an epoch below the recorded one
    raises `Refused(CONFLICT)`: an epoch never comes back. `remove` of a served replica raises
    `Refused(IN_USE)`. A full pool raises `Retry(NO_SPACE)` with nothing half-made left.
    """

    async def open_pool(self, pool: PoolOnNode) -> PoolUsage:
        """Make the pool usable here (format only what is blank, mount); tell its usage."""
        ...

    async def close_pool(self, pool: ResourceId, *, destroy: bool = False) -> None:
        """Stop using the pool; with `destroy`, an empty one is removed for ever."""
        ...

    async def create(self, replica: ReplicaSpec) -> ReplicaRecord:
        """Make a replica, with its content if it has a source."""
        ...

    async def grow(self, volume: ResourceId, size_bytes: int, generation: int) -> ReplicaRecord:
        """Make a replica larger; smaller is refused."""
        ...

    async def remove(self, volume: ResourceId) -> None:
        """Remove a replica and its record."""
        ...

    async def replicas(self, volume: ResourceId | None = None) -> tuple[ReplicaRecord, ...]:
        """All replicas in the open pools of this node, or that of one volume."""
        ...

    async def serve(
        self, volume: ResourceId, epoch: int, *, address: str | None = None, fresh: bool = False
    ) -> ServedReplica:
        """Serve a replica under that epoch, and end whatever served it under an older one; with
        `address` (of this node in the storage network) also to other nodes, over TCP there.

        `fresh`: whatever served it before is ended, also under this epoch. What was still on the
        way from an earlier client is written by the return, or never: a replica that comes back
        into a graph, or into a new one, must not be overwritten by what was sent to it before.
        """
        ...

    async def end_serving(self, volume: ResourceId, below_epoch: int) -> None:
        """End servers of epochs below `below_epoch`, and record that they are over."""
        ...

    async def attach(self, spec: AttachSpec) -> AttachedVolume:
        """Attach a volume here; one of the same volume under an older epoch is ended first.

        One of the same epoch that is broken or has another size, other slots or another number is
        made anew behind the same socket and export: its client fails what is on the way, and
        finds it there again. With slots all replicas are in it at the return, or it is not made.
        """
        ...

    async def detach(self, volume: ResourceId) -> bool:
        """Flush, and end the attached graph. True where it ended in order: no member had failed,
        nothing was on the way any more, and all is on disk on every member."""
        ...

    async def attached(self, volume: ResourceId | None = None) -> tuple[AttachedVolume, ...]:
        """All volumes attached on this node, or that one."""
        ...

    async def limit(self, volume: ResourceId, qos: Qos) -> None:
        """Bound what an attached volume takes from now on; not attached: nothing to do."""
        ...


class SnapshotRecord(Model):
    """A volume in a snapshot, as found on the node."""

    snapshot: ResourceId
    volume: ResourceId
    pool: ResourceId
    size_bytes: int
    used_bytes: int = 0
    complete: bool = True


@runtime_checkable
class Snapshots(Protocol):
    """What an engine that can take snapshots has besides. All acts are idempotent."""

    async def take(
        self, snapshot: ResourceId, volumes: tuple[ResourceId, ...]
    ) -> tuple[SnapshotRecord, ...]:
        """Keep the replicas of these volumes as they are at one point: what any of them was told
        to be written before it is in, nothing that began after it. Writers wait meanwhile, for
        a second or so at most; where that is not enough nothing is kept, and `Retry` is raised.
        Taken already: nothing to do. `Refused(NOT_SUPPORTED)` where the pool shares no blocks.
        """
        ...

    async def snapshots(self, snapshot: ResourceId | None = None) -> tuple[SnapshotRecord, ...]:
        """All that is kept here, or of that one; `complete` false: it was cut while taken."""
        ...

    async def drop(self, snapshot: ResourceId) -> None:
        """Remove a snapshot with all its volumes; what was made from it stays."""
        ...

    async def revert(
        self, volume: ResourceId, snapshot: ResourceId, generation: int
    ) -> ReplicaRecord:
        """Give a replica that is not served (else `Refused(IN_USE)`) the content of a snapshot
        of it; its size stays."""
        ...


def sidecar_path(folder: Path, volume: ResourceId) -> Path:
    """Where the record beside a replica lies."""
    return folder / f"{volume}.json"
