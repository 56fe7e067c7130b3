"""A volume engine in memory: real enough to lose data when it is used wrongly.

What a node has on disk and in its process table lies in a `FakeMachine`, found by the driver's
state folder, so that it outlives the driver as replicas, servers and graphs do. Bytes really
go from a graph through the servers of its replicas, each under its epoch: a write in an old
epoch fails here as it does there. Faults are in the configuration, or set on the machine.
"""

from __future__ import annotations

from typing import ClassVar

from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import (
    CONFLICT,
    DRIVER_FAILED,
    IN_USE,
    INVALID,
    NOT_FOUND,
    Fatal,
    Refused,
    Retry,
)
from trivet.contracts.model import GIB, Model, ResourceId
from trivet.contracts.storage.codes import NO_SPACE, NOT_READY, SHRINK
from trivet.contracts.storage.engine import (
    AttachedVolume,
    AttachSpec,
    MemberState,
    PoolOnNode,
    ReplicaRecord,
    ReplicaSpec,
    ServedReplica,
    SnapshotRecord,
    check_attachable,
)
from trivet.contracts.storage.pool import DiskUsage, PoolUsage
from trivet.contracts.storage.volume import Qos
from trivet.testing.fakes.volume_machine import (
    BLOCK,
    MACHINES,
    FakeReplica,
    FakeSnapshot,
    export_name,
    is_hung,
    serving,
)
from trivet.testing.fakes.volume_replication import FakeReplication, Hearers, new_graph
from trivet.testing.fakes.volume_snapshots import FakeSnapshotParts

DEFAULT_POOL_BYTES = 64 * GIB


class FakeEngineConfig(Model):
    """`copy_blocks`: how far a copy to a member gets between two looks (0: to its end);
    `pool_bytes` is what each member has, whatever was asked."""

    pool_bytes: int = DEFAULT_POOL_BYTES
    fail_before: dict[str, int] = {}
    fail_after: dict[str, int] = {}
    copy_blocks: int = 0


class FakeVolumeEngine(FakeReplication, FakeSnapshotParts):
    """The semantic fake of a volume engine."""

    name: ClassVar[str] = "fake-engine"
    Config: ClassVar[type[Model]] = FakeEngineConfig

    def __init__(self, context: DriverContext, config: FakeEngineConfig) -> None:
        self._context = context
        self._config = config
        self._copy_blocks = config.copy_blocks
        self._hearers = Hearers()
        self._opened = False
        self.machine = MACHINES[context.state_dir, context.node]

    @classmethod
    async def probe(cls) -> Probe:
        """Always usable, never chosen by `auto`."""
        return Probe(usable=True, reason="a fake, for tests", score=-1)

    async def open(self) -> None:
        """Make ready."""
        self.machine.fail_before.update(self._config.fail_before)
        self.machine.fail_after.update(self._config.fail_after)
        self.machine.pools.clear()
        self._opened = True

    async def close(self) -> None:
        """What runs stays."""
        self._opened = False

    # --- pools and replicas ----------------------------------------------------------------

    async def open_pool(self, pool: PoolOnNode) -> PoolUsage:
        """Make the pool usable."""
        self._begin("open_pool", pool.id)
        self.machine.pools[pool.id] = pool
        self.machine.made.setdefault(pool.id, pool.member.file_gib or 0)
        self._end("open_pool")
        return self._usage(pool.id)

    async def close_pool(self, pool: ResourceId, *, destroy: bool = False) -> None:
        """Stop using the pool."""
        self._begin("close_pool", pool)
        mine = [v for v, r in self.machine.replicas.items() if r.spec.pool == pool]
        mine += [
            s for s, kept in self.machine.snapshots.items() for k in kept.values() if k.pool == pool
        ]
        if destroy and mine:
            raise Refused(IN_USE, f"pool {pool} still has replicas")
        if any(v in mine for v, _ in self.machine.servers.values()):
            raise Refused(IN_USE, f"pool {pool} still serves replicas")
        self.machine.pools.pop(pool, None)
        if destroy:
            self.machine.made.pop(pool, None)
        self._end("close_pool")

    async def create(self, replica: ReplicaSpec) -> ReplicaRecord:
        """Make a replica."""
        self._begin("create", replica.volume)
        known = self.machine.replicas.get(replica.volume)
        if known is not None and known.complete:
            if (known.spec.pool, known.size_bytes) != (replica.pool, replica.size_bytes):
                raise Refused(CONFLICT, f"there is another replica of {replica.volume} already")
            return self._record(replica.volume)
        if replica.pool not in self.machine.pools:
            raise Refused(NOT_FOUND, f"pool {replica.pool} is not open")
        blocks: dict[int, bytes] = {}
        if replica.source is not None:
            pool, size, found = self._source_of(replica, replica.source)
            if pool != replica.pool or size > replica.size_bytes:
                raise Refused(INVALID, f"{replica.source} can't be the source")
            blocks = dict(found)
        made = FakeReplica(replica, replica.size_bytes, replica.generation, blocks)
        made.disk = self._disk_for(replica)
        if made.used_bytes() > self._free(replica.pool):
            raise Retry(NO_SPACE, f"pool {replica.pool} is full")
        self.machine.replicas[replica.volume] = made
        self._end("create")
        made.complete = True
        return self._record(replica.volume)

    async def grow(self, volume: ResourceId, size_bytes: int, generation: int) -> ReplicaRecord:
        """Make a replica larger."""
        self._begin("grow", volume)
        replica = self._complete(volume)
        if size_bytes < replica.size_bytes:
            raise Refused(SHRINK, f"{volume} is larger than that")
        more = size_bytes - replica.size_bytes
        if not replica.spec.thin and more > self._free(replica.spec.pool):
            raise Retry(NO_SPACE, f"pool {replica.spec.pool} is full")
        replica.size_bytes, replica.generation = size_bytes, generation
        self._end("grow")
        return self._record(volume)

    async def remove(self, volume: ResourceId) -> None:
        """Remove a replica."""
        self._begin("remove", volume)
        if any(v == volume for v, _ in self.machine.servers.values()):
            raise Refused(IN_USE, f"the replica of {volume} is being served")
        if volume in self.machine.replicas:
            self._open_pool_of(volume)
            del self.machine.replicas[volume]
        self._end("remove")

    async def replicas(self, volume: ResourceId | None = None) -> tuple[ReplicaRecord, ...]:
        """All replicas in the open pools, or that of one volume."""
        self._begin("replicas", volume or "")
        mine = self.machine.replicas
        wanted = sorted(mine) if volume is None else [volume] * (volume in mine)
        self.machine.looked_at += len(wanted)
        return tuple(self._record(v) for v in wanted if self._is_seen(mine[v]))

    # --- serving and attaching -------------------------------------------------------------

    async def serve(
        self, volume: ResourceId, epoch: int, *, address: str | None = None, fresh: bool = False
    ) -> ServedReplica:
        """Serve a replica under `epoch` alone."""
        self._begin("serve", volume)
        replica = self._complete(volume)
        if epoch < max(replica.epoch, replica.floor):
            raise Refused(CONFLICT, f"epoch {epoch} of {volume} is over")
        replica.epoch = replica.floor = epoch
        self._end_servers(volume, epoch + 1 if fresh else epoch)
        socket = str(self._context.run_dir / self._context.node / f"{volume}.e{epoch}.sock")
        if socket not in self.machine.servers:
            self._start_server(socket, volume, epoch)
        self._end("serve")
        made = ServedReplica(
            volume=volume,
            epoch=epoch,
            export=export_name(self.machine, socket),
            socket=socket,
            node=self._context.node,
            boot=f"boot-{self.machine.boots}",
            size_bytes=replica.size_bytes,
        )
        remote = {"host": address, "port": 10809}
        return made.model_copy(update=remote) if address is not None else made

    async def end_serving(self, volume: ResourceId, below_epoch: int) -> None:
        """End older servers for ever."""
        self._begin("end_serving", volume)
        replica = self.machine.replicas.get(volume)
        if replica is not None:
            replica.floor = max(replica.floor, below_epoch)
        self._end_servers(volume, below_epoch)
        self._end("end_serving")

    async def attach(self, spec: AttachSpec) -> AttachedVolume:
        """Attach a volume."""
        self._begin("attach", spec.volume)
        check_attachable(spec)
        known = self.machine.graphs.get(spec.volume)
        if known is not None and known[0].epoch > spec.epoch:
            raise Refused(CONFLICT, f"{spec.volume} is attached in a later epoch")
        alike = known is not None and _is_alike(known[0], spec)
        if known is None or not alike or not self._healthy(*known):
            self._check_served(spec)
            self.machine.graphs[spec.volume] = (spec, True)
            self.machine.slotted.pop(spec.volume, None)
            if spec.slots:
                self.machine.slotted[spec.volume] = new_graph(spec, self._context.node)
        self._end("attach")
        return self._attached(spec.volume)

    async def detach(self, volume: ResourceId) -> bool:
        """End a graph."""
        self._begin("detach", volume)
        known = self.machine.graphs.pop(volume, None)
        graph = self.machine.slotted.pop(volume, None)
        self._end("detach")
        if known is None or not self._healthy(*known):
            return False
        return graph is None or not (
            graph.failed_once
            or MemberState.FAILED in self.states(graph).values()
            or any(is_hung(m.served.socket) for m in graph.members.values())
        )

    async def attached(self, volume: ResourceId | None = None) -> tuple[AttachedVolume, ...]:
        """All graphs, or that of one volume."""
        self._begin("attached", volume or "")
        graphs = self.machine.graphs
        wanted = sorted(graphs) if volume is None else [volume] * (volume in graphs)
        self.machine.looked_at += len(wanted)
        return tuple(self._attached(v) for v in wanted)

    async def limit(self, volume: ResourceId, qos: Qos) -> None:
        """Bound a graph."""
        self._begin("limit", volume)
        if volume in self.machine.graphs:
            spec, alive = self.machine.graphs[volume]
            if not alive:
                raise Fatal(DRIVER_FAILED, f"the graph of {volume} does not answer")
            self.machine.graphs[volume] = (spec.model_copy(update={"qos": qos}), alive)
        self._end("limit")

    # --- snapshots -------------------------------------------------------------------------

    async def take(
        self, snapshot: ResourceId, volumes: tuple[ResourceId, ...]
    ) -> tuple[SnapshotRecord, ...]:
        """Keep these volumes as they are now."""
        self._begin("take", snapshot)
        known = self.machine.snapshots.get(snapshot, {})
        if set(known) != set(volumes) or not all(k.complete for k in known.values()):
            kept = {}
            for volume in volumes:
                replica = self._complete(volume)
                pool, size = replica.spec.pool, replica.size_bytes
                kept[volume] = FakeSnapshot(pool, size, dict(replica.blocks))
            self.machine.snapshots[snapshot] = kept
            self._end("take")
            for one in kept.values():
                one.complete = True
        return await self.snapshots(snapshot)

    async def snapshots(self, snapshot: ResourceId | None = None) -> tuple[SnapshotRecord, ...]:
        """All that is kept here, or of that one."""
        self._begin("snapshots", snapshot or "")
        return tuple(
            SnapshotRecord(
                snapshot=id_,
                volume=volume,
                pool=one.pool,
                size_bytes=one.size_bytes,
                used_bytes=one.used_bytes(),
                complete=one.complete,
            )
            for id_, kept in sorted(self.machine.snapshots.items())
            for volume, one in sorted(kept.items())
            if snapshot in (None, id_) and one.pool in self.machine.pools
        )

    async def drop(self, snapshot: ResourceId) -> None:
        """Remove a snapshot."""
        self._begin("drop", snapshot)
        self.machine.snapshots.pop(snapshot, None)
        self._end("drop")

    async def revert(
        self, volume: ResourceId, snapshot: ResourceId, generation: int
    ) -> ReplicaRecord:
        """Give a replica the content of a snapshot of it."""
        self._begin("revert", volume)
        replica = self._complete(volume)
        if any(v == volume for v, _ in self.machine.servers.values()):
            raise Refused(IN_USE, f"the replica of {volume} is being served")
        replica.blocks = dict(self._kept(snapshot, volume).blocks)
        replica.generation = generation
        self._end("revert")
        return self._record(volume)

    def _kept(self, snapshot: ResourceId, volume: ResourceId) -> FakeSnapshot:
        kept = self.machine.snapshots.get(snapshot, {}).get(volume)
        if kept is None or not kept.complete:
            raise Refused(NOT_FOUND, f"there is no snapshot {snapshot} of {volume} here")
        return kept

    def _source_of(
        self, spec: ReplicaSpec, source: ResourceId
    ) -> tuple[ResourceId, int, dict[int, bytes]]:
        if spec.snapshot is not None:
            kept = self._kept(spec.snapshot, source)
            return kept.pool, kept.size_bytes, kept.blocks
        replica = self._complete(source)
        return replica.spec.pool, replica.size_bytes, replica.blocks

    # --- inside ----------------------------------------------------------------------------

    def _begin(self, operation: str, subject: str) -> None:
        assert self._opened, "the engine was used before open() or after close()"
        self.machine.calls.append((operation, subject))
        self._fault(self.machine.fail_before, operation)

    def _end(self, operation: str) -> None:
        self._fault(self.machine.fail_after, operation)

    def _fault(self, faults: dict[str, int], operation: str) -> None:
        if faults.get(operation, 0) > 0:
            faults[operation] -= 1
            raise Fatal(DRIVER_FAILED, f"{operation} was made to fail")

    def _usage(self, pool: ResourceId) -> PoolUsage:
        size = self._size(pool)
        used = size - self._free(pool)
        disks = tuple(
            DiskUsage(
                disk=disk, size_bytes=self._config.pool_bytes, used_bytes=self._used_on(pool, disk)
            )
            for disk in self._disks(pool)
        )
        return PoolUsage(
            node=self._context.node, size_bytes=size, used_bytes=used, reflink=True, disks=disks
        )

    def _disks(self, pool: ResourceId) -> list[str]:
        """The disks that the pool is open with."""
        there = self.machine.pools.get(pool)
        if there is None:
            return []
        return [d for d, path in zip(there.member.disks, there.devices, strict=True) if path]

    def _used_on(self, pool: ResourceId, disk: str) -> int:
        mine = (r for r in self.machine.replicas.values() if r.spec.pool == pool)
        return sum(r.used_bytes() for r in mine if r.disk == disk)

    def _disk_for(self, spec: ReplicaSpec) -> str:
        """Beside a source that it shares with, where it is asked to lie, or where least is."""
        disks = self._disks(spec.pool)
        if not disks:
            return ""
        beside = self.machine.replicas.get(spec.source) if spec.source else None
        if beside is not None and spec.linked:
            return beside.disk
        if spec.disk and spec.disk not in disks:
            raise Retry(NOT_READY, f"disk {spec.disk} is not open")
        return spec.disk or min(disks, key=lambda d: self._used_on(spec.pool, d))

    def _is_seen(self, replica: FakeReplica) -> bool:
        """Whether the disk that a replica lies on is open."""
        pool = replica.spec.pool
        if pool not in self.machine.pools:
            return False
        return not replica.disk or replica.disk in self._disks(pool)

    def _free(self, pool: ResourceId) -> int:
        mine = (r for r in self.machine.replicas.values() if r.spec.pool == pool)
        return self._size(pool) - sum(r.used_bytes() for r in mine)

    def _size(self, pool: ResourceId) -> int:
        """A gigabyte that the member's file was grown by is one more than it was made with."""
        if disks := self._disks(pool):
            return self._config.pool_bytes * len(disks)
        more = (self.machine.pools[pool].member.file_gib or 0) if pool in self.machine.pools else 0
        return self._config.pool_bytes + max(0, more - self.machine.made.get(pool, more)) * GIB

    def _open_pool_of(self, volume: ResourceId) -> None:
        replica = self.machine.replicas[volume]
        if not self._is_seen(replica):
            raise Refused(NOT_FOUND, f"pool {replica.spec.pool} is not open, or not that disk")

    def _complete(self, volume: ResourceId) -> FakeReplica:
        replica = self.machine.replicas.get(volume)
        if replica is None or not replica.complete:
            raise Refused(NOT_FOUND, f"there is no replica of {volume} here")
        self._open_pool_of(volume)
        return replica

    def _record(self, volume: ResourceId) -> ReplicaRecord:
        replica = self.machine.replicas[volume]
        epochs = [e for v, e in self.machine.servers.values() if v == volume]
        return ReplicaRecord(
            volume=volume,
            pool=replica.spec.pool,
            size_bytes=replica.size_bytes,
            generation=replica.generation,
            epoch=replica.epoch,
            floor=max(replica.epoch, replica.floor),
            used_bytes=replica.used_bytes(),
            serving=max(epochs, default=None),
            complete=replica.complete,
            disk=replica.disk,
        )

    def _end_servers(self, volume: ResourceId, below_epoch: int) -> None:
        for socket, (served, epoch) in list(self.machine.servers.items()):
            if served == volume and epoch < below_epoch:
                del self.machine.servers[socket]

    def _start_server(self, socket: str, volume: ResourceId, epoch: int) -> None:
        """Whoever was connected to an earlier server there does not know this one."""
        self.machine.servers[socket] = (volume, epoch)
        self.machine.sessions[socket] += 1

    def _check_served(self, spec: AttachSpec) -> None:
        found = [serving(r.socket, r.export) for r in spec.replicas]
        if None in found or any(is_hung(r.socket) for r in spec.replicas):
            raise Fatal(DRIVER_FAILED, f"a replica of {spec.volume} is not served")
        if min(r.size_bytes for r in found if r is not None) < spec.size_bytes:
            raise Fatal(DRIVER_FAILED, f"a replica of {spec.volume} is too small")

    def _healthy(self, spec: AttachSpec, alive: bool) -> bool:
        if spec.slots:
            return alive
        return alive and all(serving(r.socket, r.export) for r in spec.replicas)

    def _attached(self, volume: ResourceId) -> AttachedVolume:
        spec, alive = self.machine.graphs[volume]
        there = AttachedVolume(
            volume=volume,
            epoch=spec.epoch,
            socket=str(self._context.run_dir / f"{volume}.e{spec.epoch}.top"),
            export=f"{volume}.e{spec.epoch}",
            healthy=False,
        )
        if not self._healthy(spec, alive):
            return there
        seen: dict[str, object] = {"healthy": True, "size_bytes": spec.size_bytes, "qos": spec.qos}
        seen |= {"number": spec.number, "slots": spec.slots}
        graph = self.machine.slotted.get(volume)
        if graph is not None:
            changed = len(graph.changes) * BLOCK
            seen |= {"members": self.states(graph), "changed_bytes": changed}
        return there.model_copy(update=seen)


def _is_alike(one: AttachSpec, other: AttachSpec) -> bool:
    def kind(spec: AttachSpec) -> tuple[int, int, int, int]:
        return spec.epoch, spec.number, spec.slots, spec.size_bytes

    return kind(one) == kind(other)
