"""How a node's agent does what a volume's plan says: one branch an action.

What is recorded is recorded by compare-and-swap over what is there by then; an attachment is
only told for the epoch it was made for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial

from trivet.contracts.errors import CONFLICT, INTERNAL, NOT_SUPPORTED, Fatal, Refused, Retry
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.endpoints.node_replica_serve import ENDPOINT as SERVE
from trivet.contracts.storage.endpoints.node_replica_serve import ServeRequest
from trivet.contracts.storage.engine import (
    AttachSpec,
    ReplicaRecord,
    ReplicaSpec,
    ServedReplica,
    Snapshots,
    VolumeEngine,
)
from trivet.contracts.storage.pool import Pool
from trivet.contracts.storage.volume import CloneMode, Missing, Replica, ReplicaState, Volume
from trivet.runtime.collection import Collection
from trivet.runtime.service import Runtime
from trivet.storage.domain import attachment
from trivet.storage.domain import volume_plan as do
from trivet.storage.domain.replication import slots_of
from trivet.storage.domain.volume_status import (
    found,
    in_sync,
    removed,
    replica_on,
    settled,
    stated,
    with_replica,
)
from trivet.storage.node.graphs import Graphs
from trivet.storage.node.serving import Serving

Change = Callable[[Volume], Volume]


class VolumeEffects:
    """Applies actions on this node."""

    def __init__(
        self,
        runtime: Runtime,
        volumes: Collection[Volume],
        pools: Collection[Pool],
        engine: VolumeEngine,
        serving: Serving,
        graphs: Graphs | None,
    ) -> None:
        self._graphs = graphs
        self._runtime = runtime
        self._volumes = volumes
        self._pools = pools
        self._engine = engine
        self._serving = serving

    async def apply(self, volume: Volume, action: do.Action) -> float | None:
        """Do `action` for `volume`; after how many seconds to look again, if that is known."""
        id_, node = volume.meta.id, self._runtime.node
        match action:
            case do.EndGraph():
                await self._end_graph(volume)
            case do.NoteDetached():
                await self._write(volume, lambda v: attachment.detached(v, node))
            case do.EndServing(below):
                await self._engine.end_serving(id_, below)
            case do.RemoveReplica():
                await self._engine.remove(id_)
            case do.NoteRemoved():
                await self._write(volume, lambda v: with_replica(v, node, removed))
            case do.NoteLost():
                now = self._runtime.clock.now()
                await self._write(volume, lambda v: with_replica(v, node, partial(_lost, now)))
            case do.MakeReplica():
                await self._note(volume, await self._engine.create(self._spec(volume)))
            case do.GrowReplica():
                size, generation = volume.status.claimed_bytes, volume.meta.generation
                await self._note(volume, await self._engine.grow(id_, size, generation))
            case do.Revert(snapshot):
                await self._revert(volume, snapshot)
            case do.NoteReplica():
                for record in await self._engine.replicas(id_):
                    await self._note(volume, record)
            case do.MakeGraph(epoch):
                await self._attach(volume, epoch)
            case do.KeepGraph():
                if self._graphs is None:
                    raise Refused(NOT_SUPPORTED, f"{self._engine.name} keeps one replica only")
                return await self._graphs.keep(volume)
            case do.NoteEpoch(epoch):
                await self._write(volume, lambda v: attachment.caught_up(v, epoch))
            case do.Limit(qos):
                await self._engine.limit(id_, qos)
            case do.Release() | do.LookAgain():
                raise Fatal(INTERNAL, "that is the agent's own")
        return None

    async def _end_graph(self, volume: Volume) -> None:
        """In order, and recorded so, where it is the holder of this very graph that lets go."""
        held = volume.status.attachment
        here = held is not None and held.node == self._runtime.node and held.detaching
        if here and self._graphs is not None and slots_of(volume):
            await self._graphs.end(volume)
        else:
            await self._engine.detach(volume.meta.id)

    def _spec(self, volume: Volume) -> ReplicaSpec:
        pool = self._pools.get(volume.status.pool or "")
        if pool is None:
            raise Retry(CONFLICT, f"pool {volume.status.pool} is not known here yet")
        mine = replica_on(volume, self._runtime.node)
        # One that is brought in sync with the others begins empty.
        source = None if mine and mine.missing is Missing.ALL else volume.spec.source
        disk = mine.disk if mine and mine.disk != volume.status.pool else ""
        return ReplicaSpec(
            volume=volume.meta.id,
            pool=pool.meta.id,
            size_bytes=volume.status.claimed_bytes,
            generation=volume.meta.generation,
            thin=volume.spec.thin,
            source=volume.status.source if source else None,
            snapshot=volume.status.source_snapshot if source else None,
            linked=source is None or source.mode is CloneMode.LINKED,
            disk=disk,
        )

    async def _note(self, volume: Volume, record: ReplicaRecord) -> None:
        now, node = self._runtime.clock.now(), self._runtime.node
        disk = record.disk or volume.status.pool or ""

        def change(current: Volume) -> Volume:
            return with_replica(current, node, lambda r: found(current, r, record, disk, now))

        await self._write(volume, change)

    async def _revert(self, volume: Volume, snapshot: ResourceId) -> None:
        if not isinstance(self._engine, Snapshots):
            raise Refused(NOT_SUPPORTED, f"{self._engine.name} keeps no snapshots")
        generation = volume.meta.generation
        record = await self._engine.revert(volume.meta.id, snapshot, generation)

        def back(current: Volume) -> Volume:
            if current.status.reverting != snapshot:
                return current
            return settled(current.with_status(reverting=None))

        await self._write(volume, back)
        await self._note(volume, record)

    async def _attach(self, volume: Volume, epoch: int) -> None:
        """Serve every replica in sync under the new epoch (which ends the older ones), the
        local one first, and make the graph over them."""
        node = self._runtime.node
        nodes = sorted((r.node for r in in_sync(volume)), key=lambda n: n != node)
        served = await asyncio.gather(*(self._serve(volume, epoch, n) for n in nodes))
        spec = AttachSpec(
            volume=volume.meta.id,
            epoch=epoch,
            size_bytes=volume.status.size_bytes,
            replicas=tuple(served),
            slots=len(served) if len(served) > 1 else 0,
            thin=volume.spec.thin,
            qos=volume.spec.qos,
        )
        made = await self._engine.attach(spec)
        await self._write(volume, lambda v: attachment.attached(v, made))

    async def _serve(self, volume: Volume, epoch: int, node: str) -> ServedReplica:
        if node == self._runtime.node:
            return await self._serving.serve(volume.meta.id, epoch)
        request = ServeRequest(volume=volume.meta.id, epoch=epoch, remote=True)
        return await self._runtime.client.call(SERVE, request, node=node)

    async def _write(self, volume: Volume, change: Change) -> None:
        """Write what was done, unless the name has become another volume's meanwhile."""
        await self._volumes.mutate(
            self._volumes.key_of(volume),
            lambda v: change(v) if v.meta.id == volume.meta.id else v,
        )


def _lost(now: datetime, replica: Replica) -> Replica:
    return stated(replica, ReplicaState.LOST, "it is not on its node any more", now, Missing.ALL)
