"""What the engine on QEMU's block layer does with the graphs of attached volumes.

Attaching and detaching, and the acts of `Replication`, one at a time for each volume; only
`break_off` waits for no other, since it is what frees the others when a replica hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from trivet.contracts.driver import DriverContext
from trivet.contracts.errors import CONFLICT, DRIVER_FAILED, NOT_FOUND, Fatal, Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import (
    AttachedVolume,
    AttachSpec,
    MemberState,
    ServedReplica,
    check_attachable,
)
from trivet.contracts.storage.replication import Copy, Extent, MemberFailure
from trivet.contracts.storage.volume import Missing, Qos
from trivet.plugins.storage import copies, qsd
from trivet.plugins.storage.failures import Failures
from trivet.plugins.storage.members import read_record, served_by
from trivet.plugins.storage.nbd_client import greets
from trivet.plugins.storage.slot_changes import SlotChanges
from trivet.plugins.storage.slots import server_of
from trivet.plugins.storage.sockets import Socket, Sockets

GREETING_S = 1.0


class AttachedGraphs:
    """The part of the engine that attaches volumes."""

    _context: DriverContext
    _graphs: Sockets
    _servers: Sockets
    _locks: dict[ResourceId, asyncio.Lock]
    _failures: Failures

    async def attach(self, spec: AttachSpec) -> AttachedVolume:
        """Attach a volume here; a graph of an older epoch, a broken one, or one of another
        size is ended first."""
        check_attachable(spec)
        async with self._locks[spec.volume]:
            for graph in self._graphs.of(spec.volume):
                if graph.epoch > spec.epoch:
                    raise Refused(CONFLICT, f"{spec.volume} is attached in epoch {graph.epoch}")
                if graph.epoch == spec.epoch:
                    there = await qsd.look_at(graph, self._servers)
                    has = (there.size_bytes, there.slots, there.number)
                    if there.healthy and has == (spec.size_bytes, spec.slots, spec.number):
                        return there
                await self._end_graph(graph)
            graph = await qsd.start_graph(self._graphs, spec, self._context.node)
            there = await qsd.look_at(graph, self._servers)
            if MemberState.FAILED in there.members.values():
                await self._end_graph(graph)
                failed = ", ".join(n for n, s in there.members.items() if s is MemberState.FAILED)
                raise Fatal(DRIVER_FAILED, f"{failed} went while {spec.volume} was attached")
            await self._failures.listen_from_the_start(graph)
            return there

    async def detach(self, volume: ResourceId) -> bool:
        """Flush, and end the attached graph; true where it ended in order."""
        ended = []
        async with self._locks[volume]:
            for graph in self._graphs.of(volume):
                ended.append(await self._end_graph(graph))
        return bool(ended) and all(ended)

    async def attached(self, volume: ResourceId | None = None) -> tuple[AttachedVolume, ...]:
        """All volumes attached on this node, or that one, with their health."""
        found = self._graphs.all() if volume is None else self._graphs.of(volume)
        return tuple(await asyncio.gather(*(qsd.look_at(g, self._servers) for g in found)))

    async def limit(self, volume: ResourceId, qos: Qos) -> None:
        """Bound what an attached volume takes from now on."""
        async with self._locks[volume]:
            for graph in self._graphs.of(volume):
                await qsd.limit_graph(graph, qos)

    # --- members of graphs with slots ------------------------------------------------------

    def failures(self) -> AsyncIterator[MemberFailure]:
        """Failures of members of all graphs of this node as they happen."""
        return self._failures.told()

    async def drop_member(self, volume: ResourceId, node: str) -> None:
        """Take a member out; a placeholder votes in its place."""
        async with self._locks[volume]:
            await SlotChanges(self._graph(volume), self._context.node).drop(node)

    async def admit(self, volume: ResourceId, served: ServedReplica) -> None:
        """Take a replica in for writes only."""
        async with self._locks[volume]:
            await SlotChanges(self._graph(volume), self._context.node).admit(served)

    async def promote(self, volume: ResourceId, node: str) -> None:
        """Let a member for writes only serve reads too."""
        async with self._locks[volume]:
            await SlotChanges(self._graph(volume), self._context.node).promote(node)

    async def break_off(self, volume: ResourceId, node: str) -> None:
        """End a member's connections at once, also while it hangs."""
        slots = SlotChanges(self._graph(volume), self._context.node)
        await asyncio.to_thread(slots.break_off, node)

    async def checkpoint(self, volume: ResourceId, *, forget: bool = True) -> None:
        """Flush through all members, then forget the changes before the flush."""
        graph = self._graph(volume)
        if not forget:
            await copies.flush(graph)
            return
        async with self._locks[volume]:
            older = await copies.begin_next_memory(graph)
        # Not while others wait: a member that hangs is dropped meanwhile.
        await copies.flush(graph)
        async with self._locks[volume]:
            await copies.forget_changes(graph, older)

    async def copy(
        self,
        volume: ResourceId,
        node: str,
        missing: Missing,
        *,
        extents: tuple[Extent, ...] = (),
        bytes_per_s: int = 0,
    ) -> None:
        """Begin to copy to a member for writes only, or go on."""
        async with self._locks[volume]:
            graph = self._graph(volume)
            changes = SlotChanges(graph, self._context.node)
            record, number = await changes.writes_only(node)
            if missing is Missing.ALL:
                extents = (Extent(offset=0, length=record.size_bytes),)
                if record.members[number].blank and await changes.reads(self._context.node):
                    extents = await self._data(volume, record.size_bytes)
            await copies.begin_copy(graph, record, number, missing, extents, bytes_per_s)

    async def copies(self, volume: ResourceId | None = None) -> tuple[Copy, ...]:
        """All copies of this node's graphs, or of that one."""
        found: list[Copy] = []
        for graph in self._graphs.all() if volume is None else self._graphs.of(volume):
            record = await asyncio.to_thread(read_record, graph.record)
            if record is not None and record.slots and graph.daemon is not None:
                found += await copies.all_copies(graph, record)
        return tuple(found)

    async def end_copy(self, volume: ResourceId, node: str) -> None:
        """Stop a copy if it runs, and forget it."""
        async with self._locks[volume]:
            graph = self._graph(volume)
            record = await asyncio.to_thread(read_record, graph.record)
            if record is not None:
                await copies.end_copies(graph, record.numbers_of(node))

    async def _data(self, volume: ResourceId, size_bytes: int) -> tuple[Extent, ...]:
        """Where this node's replica has data."""
        raise NotImplementedError

    async def servers(self, volume: ResourceId) -> tuple[ServedReplica, ...]:
        """How the members of a graph that have not failed are reached."""
        graph = self._graph(volume)
        record = await asyncio.to_thread(read_record, graph.record)
        there = await qsd.look_at(graph, self._servers)
        well = [node for node, state in there.members.items() if state is not MemberState.FAILED]
        latest = [member for node in well if record for member in record.of(node)[-1:]]
        return tuple(served_by(member, volume, graph.epoch) for member in latest)

    async def greets(self, served: ServedReplica) -> bool:
        """Whether the server of a replica says who it is to a new client."""
        return await greets(server_of(served, self._context.node), timeout_s=GREETING_S)

    def _graph(self, volume: ResourceId) -> Socket:
        """The graph with slots of a volume."""
        for graph in self._graphs.of(volume):
            record = read_record(graph.record)
            if graph.daemon is not None and record is not None and record.slots:
                return graph
        raise Refused(NOT_FOUND, f"{volume} is not attached with slots on {self._context.node}")

    async def _end_graph(self, graph: Socket) -> bool:
        """End a graph; true where it ended in order."""
        at_rest = await qsd.come_to_rest(graph)
        in_order = at_rest and await self._failures.none_of(graph)
        await self._failures.ignore(graph)
        await qsd.end_graph(self._graphs, graph, grace_s=qsd.END_GRACE_S if at_rest else 0)
        return in_order
