"""Volumes with several replicas, in memory: slots, members, copies, and how they fail.

Bytes go to every member, or the write fails; a server that was started again is nobody's who was
connected before; one that hangs holds up what needs it until it is broken off. A copy takes
`copy_blocks` at each look at it. What a graph knows of changes and copies ends with it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from trivet.contracts.driver import DriverContext
from trivet.contracts.errors import CONFLICT, DRIVER_FAILED, NOT_FOUND, Fatal, Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.codes import SHRINK
from trivet.contracts.storage.engine import AttachedVolume, AttachSpec, MemberState, ServedReplica
from trivet.contracts.storage.replication import (
    UNREADABLE,
    Copy,
    CopyState,
    Digest,
    Extent,
    Failed,
    MemberFailure,
)
from trivet.contracts.storage.volume import Missing
from trivet.testing.fakes.volume_machine import (
    BLOCK,
    FakeCopy,
    FakeGraph,
    FakeMachine,
    FakeMember,
    FakeReplica,
    is_hung,
    serving,
)


class Hangs(BlockingIOError):
    """What was asked needs a replica that answers nothing now: it is to be asked again."""


def new_graph(spec: AttachSpec, node: str) -> FakeGraph:
    """A graph with slots as it is attached, the replica of its own node first."""
    ordered = sorted(spec.replicas, key=lambda r: r.node != node)
    members = {r.node: FakeMember(r, r.node not in spec.writes_only) for r in ordered}
    return FakeGraph(spec, members)


def is_connected(member: FakeMember) -> bool:
    """Whether a member is still reached over the connection that it was given."""
    return not member.broken and serving(member.served.socket, member.served.export) is not None


@dataclass
class Hearers:
    """Who is told of failures on a node."""

    queues: set[asyncio.Queue[MemberFailure]] = field(default_factory=set)

    def tell(self, volume: ResourceId, node: str, at: Failed) -> None:
        """Tell them all."""
        failure = MemberFailure(volume=volume, node=node, error=f"{at}: error", at=at)
        for queue in self.queues:
            queue.put_nowait(failure)


class FakeReplication:
    """The part of the fake engine that changes graphs with slots."""

    machine: FakeMachine
    _context: DriverContext
    _copy_blocks: int
    _hearers: Hearers

    def _begin(self, operation: str, subject: str) -> None:
        raise NotImplementedError

    def _end(self, operation: str) -> None:
        raise NotImplementedError

    def _complete(self, volume: ResourceId) -> FakeReplica:
        raise NotImplementedError

    # --- the contract ----------------------------------------------------------------------

    async def failures(self) -> AsyncIterator[MemberFailure]:
        """Failures of members as they happen."""
        queue: asyncio.Queue[MemberFailure] = asyncio.Queue()
        self._hearers.queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._hearers.queues.discard(queue)

    def tell_deaths(self, volume: ResourceId) -> None:
        """Tell what ended of a volume's graph here, as an engine finds by itself."""
        spec, alive = self.machine.graphs.get(volume, (None, False))
        if spec is None:
            return
        if not alive:
            self._hearers.tell(volume, "", Failed.CONNECTION)
            return
        member = self._graph(volume).members.get(self._context.node)
        if member is not None and not is_connected(member):
            self._hearers.tell(volume, self._context.node, Failed.CONNECTION)

    async def drop_member(self, volume: ResourceId, node: str) -> None:
        """Take a member out."""
        self._begin("drop_member", volume)
        graph = self._graph(volume)
        graph.members.pop(node, None)
        graph.copies.pop(node, None)
        self._end("drop_member")

    async def admit(self, volume: ResourceId, served: ServedReplica) -> None:
        """Take a replica in for writes only."""
        self._begin("admit", volume)
        graph = self._graph(volume)
        known = graph.members.get(served.node)
        if known is not None and known.served.export == served.export and is_connected(known):
            return
        if known is not None:
            raise Refused(CONFLICT, f"{served.node} is to be dropped first")
        if len(graph.members) >= graph.spec.slots:
            raise Refused(CONFLICT, f"there is no slot for {served.node}")
        replica = serving(served.socket, served.export)
        if replica is None or is_hung(served.socket):
            raise Fatal(DRIVER_FAILED, f"{served.node} does not serve {served.export}")
        if replica.size_bytes < graph.spec.size_bytes:
            raise Refused(SHRINK, f"{served.export} is too small")
        graph.members[served.node] = FakeMember(served, reads=False)
        here = self._context.node
        graph.members = dict(sorted(graph.members.items(), key=lambda m: m[0] != here))
        self._end("admit")

    async def promote(self, volume: ResourceId, node: str) -> None:
        """Let a member serve reads."""
        self._begin("promote", volume)
        member = self._graph(volume).members.get(node)
        if member is None:
            raise Refused(NOT_FOUND, f"{node} is no member")
        if not member.reads and not is_connected(member):
            raise Fatal(DRIVER_FAILED, f"{node} is not there any more")
        member.reads = True
        self._end("promote")

    async def break_off(self, volume: ResourceId, node: str) -> None:
        """End a member's connections."""
        self._begin("break_off", volume)
        member = self._graph(volume).members.get(node)
        if member is not None:
            member.broken = True
        self._end("break_off")

    async def checkpoint(self, volume: ResourceId, *, forget: bool = True) -> None:
        """Flush, then forget the changes."""
        self._begin("checkpoint", volume)
        graph = self._graph(volume)
        for node, member in graph.members.items():
            if not is_connected(member) or is_hung(member.served.socket):
                raise Fatal(DRIVER_FAILED, f"the flush does not reach {node}")
        if forget:
            graph.changes.clear()
        self._end("checkpoint")

    async def copy(
        self,
        volume: ResourceId,
        node: str,
        missing: Missing,
        *,
        extents: tuple[Extent, ...] = (),
        bytes_per_s: int = 0,
    ) -> None:
        """Begin to copy to a member, or go on."""
        self._begin("copy", volume)
        graph = self._graph(volume)
        member = graph.members.get(node)
        if member is None:
            raise Refused(NOT_FOUND, f"{node} is no member")
        known = graph.copies.get(node)
        if known is None:
            if member.reads:
                raise Refused(CONFLICT, f"{node} serves reads already")
            todo = self._blocks(graph, member, missing, extents)
            graph.copies[node] = FakeCopy(missing, todo, len(todo), bytes_per_s)
        else:
            known.bytes_per_s = bytes_per_s
            known.error = ""
        self._end("copy")

    async def copies(self, volume: ResourceId | None = None) -> tuple[Copy, ...]:
        """All copies, each a step further than at the last look."""
        self._begin("copies", volume or "")
        found = []
        for id_, graph in sorted(self.machine.slotted.items()):
            if volume in (None, id_):
                for node, copy in graph.copies.items():
                    self._advance(graph, node, copy)
                    found.append(copy.told(id_, node))
        return tuple(found)

    async def end_copy(self, volume: ResourceId, node: str) -> None:
        """Stop a copy, and forget it."""
        self._begin("end_copy", volume)
        self._graph(volume).copies.pop(node, None)
        self._end("end_copy")

    async def servers(self, volume: ResourceId) -> tuple[ServedReplica, ...]:
        """How the members that have not failed are reached."""
        members = self._graph(volume).members.values()
        return tuple(member.served for member in members if is_connected(member))

    async def greets(self, served: ServedReplica) -> bool:
        """Whether a server is there and answers."""
        return serving(served.socket, served.export) is not None and not is_hung(served.socket)

    async def digest(self, volume: ResourceId, extent: Extent, block_bytes: int) -> Digest:
        """Hash a part of this node's replica."""
        self._begin("digest", volume)
        replica = self._complete(volume)
        end = min(extent.offset + extent.length, replica.size_bytes)
        hashes = []
        for at in range(extent.offset, end, block_bytes):
            length = min(block_bytes, end - at)
            if not replica.bad.isdisjoint(range(at // BLOCK, (at + length) // BLOCK)):
                hashes.append(UNREADABLE)
                continue
            if not any(n in replica.blocks for n in range(at // BLOCK, (at + length) // BLOCK)):
                hashes.append("")  # most of a thin replica is nothing
                continue
            data = replica.read(at, length)
            hashes.append(hashlib.blake2b(data, digest_size=16).hexdigest() if any(data) else "")
        return Digest(
            volume=volume, offset=extent.offset, block_bytes=block_bytes, hashes=tuple(hashes)
        )

    # --- what a guest does -----------------------------------------------------------------

    def write(self, attached: AttachedVolume, offset: int, data: bytes) -> None:
        """A guest's write of whole blocks; raises OSError where a replica missed it, and that
        one's `Hangs` where it is not answered."""
        spec = self._spec_behind(attached)
        if spec.slots:
            self._write_slots(spec.volume, self.machine.slotted[spec.volume], offset, data)
        else:
            self._only(spec).write(offset, data)

    def read(self, attached: AttachedVolume, offset: int, length: int) -> bytes:
        """A guest's read of whole blocks, from the first replica."""
        spec = self._spec_behind(attached)
        if spec.slots:
            return self._read_slots(spec.volume, self.machine.slotted[spec.volume], offset, length)
        return self._only(spec).read(offset, length)

    def _spec_behind(self, attached: AttachedVolume) -> AttachSpec:
        spec, alive = self.machine.graphs.get(attached.volume, (None, False))
        if spec is None or not alive or spec.epoch != attached.epoch:
            raise OSError(f"{attached.socket} is gone")
        return spec

    def _only(self, spec: AttachSpec) -> FakeReplica:
        (only,) = spec.replicas
        replica = serving(only.socket, only.export)
        if replica is None:
            raise OSError("input/output error")
        if is_hung(only.socket):
            raise Hangs(f"the replica of {spec.volume} answers nothing")
        return replica

    def _write_slots(self, volume: ResourceId, graph: FakeGraph, offset: int, data: bytes) -> None:
        """A write that every member must have: those that can have it, also where it fails."""
        blocks = range(offset // BLOCK, (offset + len(data)) // BLOCK)
        graph.changes.update(blocks)
        hung, failed = False, False
        for node, member in graph.members.items():
            replica = self._reached(member)
            if replica is None:
                graph.failed_once = failed = True
                self._hearers.tell(volume, node, Failed.WRITE)
            elif is_hung(member.served.socket):
                hung = True
            elif replica.refuses:
                graph.failed_once = failed = True
                self._hearers.tell(volume, node, Failed.WRITE)
            else:
                replica.write(offset, data)
        if hung:
            raise Hangs(f"{volume}: a replica answers nothing")
        if failed or not graph.members:
            raise OSError("input/output error")

    def _read_slots(self, volume: ResourceId, graph: FakeGraph, offset: int, length: int) -> bytes:
        """A read from the first member that serves reads."""
        for node, member in graph.members.items():
            if not member.reads:
                continue
            replica = self._reached(member)
            if replica is None:
                self._hearers.tell(volume, node, Failed.READ)
                continue
            if is_hung(member.served.socket):
                raise Hangs(f"{volume}: a replica answers nothing")
            wanted = range(offset // BLOCK, (offset + length) // BLOCK)
            if not replica.bad.isdisjoint(wanted):
                self._hearers.tell(volume, node, Failed.READ)
                continue
            return replica.read(offset, length)
        raise OSError("input/output error")

    # --- inside ----------------------------------------------------------------------------

    def states(self, graph: FakeGraph) -> dict[str, MemberState]:
        """The members as a look tells them."""
        told = {}
        for node, member in sorted(graph.members.items()):
            state = MemberState.READS if member.reads else MemberState.WRITES
            told[node] = state if is_connected(member) else MemberState.FAILED
        return told

    def _graph(self, volume: ResourceId) -> FakeGraph:
        graph = self.machine.slotted.get(volume)
        if graph is None or not self.machine.graphs.get(volume, (None, False))[1]:
            raise Refused(NOT_FOUND, f"{volume} is not attached here with slots")
        return graph

    def _reached(self, member: FakeMember) -> FakeReplica | None:
        return serving(member.served.socket, member.served.export) if not member.broken else None

    def _blocks(
        self, graph: FakeGraph, member: FakeMember, missing: Missing, extents: tuple[Extent, ...]
    ) -> set[int]:
        if missing is Missing.CHANGES:
            return set(graph.changes)
        if missing is Missing.DIFFERENCES:
            return {
                block
                for e in extents
                for block in range(e.offset // BLOCK, -(-(e.offset + e.length) // BLOCK))
            }
        source, target = self._source(graph), self._reached(member)
        found = [replica.blocks for replica in (source, target) if replica is not None]
        return {block for blocks in found for block in blocks}

    def _source(self, graph: FakeGraph) -> FakeReplica | None:
        for member in graph.members.values():
            if member.reads and (replica := self._reached(member)) is not None:
                return replica
        return None

    def _advance(self, graph: FakeGraph, node: str, copy: FakeCopy) -> None:
        if copy.state is not CopyState.RUNNING:
            return
        source, target = self._source(graph), self._reached(graph.members[node])
        if source is None or target is None:
            copy.error = "Input/output error"
            return
        if is_hung(graph.members[node].served.socket):
            return
        for block in sorted(copy.todo)[: self._copy_blocks or len(copy.todo)]:
            target.write(block * BLOCK, source.read(block * BLOCK, BLOCK))
            copy.todo.discard(block)
