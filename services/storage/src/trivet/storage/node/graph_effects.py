"""How the holder's node does what the plan for a replicated volume says: one branch an action.

Whatever counts is recorded first, by compare-and-swap; only what the record says then is done to
the graph. Each may be cut at any point: what is there and what is recorded tell the next look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from trivet.contracts.errors import CONFLICT, Refused, TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import AttachSpec, ServedReplica, VolumeEngine
from trivet.contracts.storage.replication import Replication
from trivet.contracts.storage.volume import Graph, ReplicaState, Volume
from trivet.runtime.clock import Clock
from trivet.storage.domain import attachment
from trivet.storage.domain import graph_plan as do
from trivet.storage.domain.new_graph import begin_graph
from trivet.storage.domain.replication import (
    admitted,
    begin_resync,
    compared,
    graph_ended,
    graph_of,
    progressed,
    record_lost,
    resynced,
    slots_of,
)
from trivet.storage.domain.volume_status import in_sync, replica_on
from trivet.storage.node.comparison import Comparisons
from trivet.storage.node.hosts import Hosts

log = logging.getLogger(__name__)


class Volumes(Protocol):
    """What is needed of the collection of volumes."""

    def key_of(self, resource: Volume) -> str:
        """The key of a volume."""
        ...

    async def fresh(self, key: str) -> Volume | None:
        """The volume as the store has it now."""
        ...

    async def mutate(self, key: str, change: Callable[[Volume], Volume]) -> Volume | None:
        """Change the volume by compare-and-swap."""
        ...


class ReplicatingEngine(VolumeEngine, Replication, Protocol):
    """An engine that keeps several replicas of a volume."""


class GraphEffects:
    """Applies the actions for this node's graphs."""

    def __init__(
        self,
        node: str,
        volumes: Volumes,
        engine: ReplicatingEngine,
        hosts: Hosts,
        comparisons: Comparisons,
        clock: Clock,
        serve_s: float,
    ) -> None:
        self._node = node
        self._volumes = volumes
        self._engine = engine
        self._hosts = hosts
        self._comparisons = comparisons
        self._clock = clock
        self._serve_s = serve_s

    async def apply(self, volume: Volume, action: do.GraphAction) -> None:
        """Do `action` for `volume`, as it was read from the store just now. Raises
        `TrivetError`."""
        id_, graph = volume.meta.id, _graph(volume)
        match action:
            case do.MakeGraph(in_order):
                await self._make(volume, graph, in_order)
            case do.BreakOff(node):
                log.warning("%s: %s is silent and is broken off", volume, node)
                await self._engine.break_off(id_, node)
            case do.RecordLost(node, healthy, unread):
                await self._lose(volume, graph, node, healthy, unread)
            case do.Drop(node):
                await self._drop(id_, node)
            case do.Promote(node):
                await self._engine.promote(id_, node)
            case do.BeginResync(node):
                await self._begin_resync(volume, graph, node)
            case do.Admit(node):
                await self._admit(volume, graph, node)
            case do.StartCopy(node, missing, bytes_per_s):
                await self._engine.copy(id_, node, missing, bytes_per_s=bytes_per_s)
            case do.EndCopy(node):
                await self._engine.end_copy(id_, node)
            case do.Compare(node, against, bytes_per_s):
                size = volume.status.size_bytes
                self._comparisons.start(id_, graph, node, against, size, bytes_per_s)
            case do.Flush(forget):
                await self._engine.checkpoint(id_, forget=forget)
            case do.NoteProgress(node, done, total):
                now = self._clock.now()
                await self._write(volume, lambda v: progressed(v, graph, node, done, total, now))
            case do.RecordInSync(node):
                await self._record_in_sync(volume, graph, node)

    async def end(self, volume: Volume) -> None:
        """End the graph, and record it where it ended in order."""
        graph = _graph(volume)
        await self._comparisons.forget(volume.meta.id)
        there = await self._engine.attached(volume.meta.id)
        on_record = bool(there) and (there[0].epoch, there[0].number) == (graph.epoch, graph.number)
        if await self._engine.detach(volume.meta.id) and on_record:
            await self._write(volume, lambda v: graph_ended(v, graph))

    # --- making the graph --------------------------------------------------------------------

    async def _make(self, volume: Volume, graph: Graph, in_order: bool) -> None:
        if in_order:
            await self.end(volume)
        await self._comparisons.forget(volume.meta.id)
        served = await self._roll_call(volume, graph.epoch)
        boots = {node: answer.boot for node, answer in served.items()}
        now = self._clock.now()
        begun = await self._write(volume, lambda v: begin_graph(v, graph, self._node, boots, now))
        members = in_sync(begun)
        suspects = frozenset(r.node for r in members if r.suspect)
        order = sorted(members, key=lambda r: (r.suspect, r.node != self._node, r.node))
        spec = AttachSpec(
            volume=volume.meta.id,
            epoch=graph.epoch,
            number=_graph(begun).number,
            size_bytes=begun.status.size_bytes,
            replicas=tuple(served[r.node] for r in order),
            thin=begun.spec.thin,
            qos=begun.spec.qos,
            # Where fewer replicas are asked for now there may be more of them still.
            slots=max(slots_of(begun), len(members)) if slots_of(begun) else 0,
            writes_only=suspects,
        )
        made = await self._engine.attach(spec)
        await self._write(volume, lambda v: attachment.attached(v, made))

    async def _roll_call(self, volume: Volume, epoch: int) -> dict[str, ServedReplica]:
        """All replicas in sync that serve under `epoch` within the time, by a new server each:
        what an earlier graph still sends finds nobody. Raises where the epoch is over."""
        nodes = [r.node for r in in_sync(volume)]
        answers = await asyncio.gather(
            *(self._hosts.serve(volume.meta.id, epoch, node, self._serve_s) for node in nodes),
            return_exceptions=True,
        )
        served: dict[str, ServedReplica] = {}
        for node, answer in zip(nodes, answers, strict=True):
            if isinstance(answer, ServedReplica):
                served[node] = answer
            elif isinstance(answer, Refused) and answer.code is CONFLICT:
                raise answer
            elif isinstance(answer, TrivetError):
                log.warning("%s: %s does not serve it: %s", volume, node, answer)
            else:
                raise answer
        return served

    # --- who leaves, who comes ---------------------------------------------------------------

    async def _lose(
        self, volume: Volume, graph: Graph, node: str, healthy: frozenset[str], unread: bool
    ) -> None:
        now = self._clock.now()
        why = "it could not be read" if unread else "it failed while it was in use"
        after = await self._write(
            volume, lambda v: record_lost(v, graph, node, healthy, why, now, unread=unread)
        )
        replica = replica_on(after, node)
        counted = replica is not None and replica.state in (
            ReplicaState.IN_SYNC,
            ReplicaState.REBUILDING,
        )
        if graph_of(after) == graph and not counted:
            await self._drop(volume.meta.id, node)

    async def _drop(self, volume: ResourceId, node: str) -> None:
        await self._comparisons.forget(volume, node)
        await self._engine.drop_member(volume, node)

    async def _begin_resync(self, volume: Volume, graph: Graph, node: str) -> None:
        now = self._clock.now()
        after = await self._write(volume, lambda v: begin_resync(v, graph, node, now))
        replica = replica_on(after, node)
        if graph_of(after) == graph and replica and replica.state is ReplicaState.REBUILDING:
            await self._admit(after, graph, node)

    async def _admit(self, volume: Volume, graph: Graph, node: str) -> None:
        await self._comparisons.forget(volume.meta.id, node)
        served = await self._hosts.serve(volume.meta.id, graph.epoch, node, self._serve_s)
        after = await self._write(volume, lambda v: admitted(v, graph, node, served.boot))
        if graph_of(after) != graph:
            return
        await self._engine.admit(volume.meta.id, served)

    async def _record_in_sync(self, volume: Volume, graph: Graph, node: str) -> None:
        now = self._clock.now()
        await self._write(
            volume, lambda v: compared(resynced(v, graph, node, now), graph, node, now)
        )
        await self._engine.end_copy(volume.meta.id, node)
        await self._comparisons.forget(volume.meta.id, node)

    async def _write(self, volume: Volume, change: Callable[[Volume], Volume]) -> Volume:
        """Write a change, unless the name has become another volume's meanwhile; what is there
        then. Raises `Refused(CONFLICT)` where the volume is gone."""
        id_ = volume.meta.id
        after = await self._volumes.mutate(
            self._volumes.key_of(volume), lambda v: change(v) if v.meta.id == id_ else v
        )
        if after is None or after.meta.id != id_:
            raise Refused(CONFLICT, f"volume {volume.meta.name} is gone")
        return after


def _graph(volume: Volume) -> Graph:
    graph = graph_of(volume)
    if graph is None:
        raise Refused(CONFLICT, f"volume {volume.meta.name} is not held any more")
    return graph
