"""A volume's graph as the engine's contract has it, and the engine of one simulated node.

A write goes to every member and is acknowledged when all have it. Members change while nothing is
on the way through the graph. A copy takes each block in turn, ordered with the guest's writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests.simulation.sim_machine import BLOCKS, Broken, Connection, Disk, Machine, World

from trivet.contracts.errors import (
    CONFLICT,
    DRIVER_FAILED,
    NOT_FOUND,
    TIMEOUT,
    Fatal,
    Refused,
    Retry,
)
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import (
    AttachedVolume,
    AttachSpec,
    MemberState,
    ReplicaRecord,
    ServedReplica,
)
from trivet.contracts.storage.replication import Copy, CopyState, Digest, Extent, MemberFailure
from trivet.contracts.storage.volume import Missing

BLOCK = 4096
CHANGE_WAIT_S = 1.0


class WriteFailed(Exception):
    """The guest's request failed: it is stopped, and asks again when it is let on."""


@dataclass
class Member:
    """A replica in a graph."""

    connection: Connection
    reads: bool
    failed: bool = False


@dataclass
class CopyJob:
    """A copy to a member."""

    missing: Missing
    task: asyncio.Task[None]
    state: CopyState = CopyState.RUNNING
    done: int = 0
    error: str = ""


@dataclass
class Graph:
    """One making of a graph: a process on its node."""

    spec: AttachSpec
    machine: Machine
    world: World
    told: Callable[[str], None]
    members: dict[str, Member] = field(default_factory=dict)
    changed: set[int] = field(default_factory=set)
    alive: bool = True
    on_the_way: int = 0
    copies: dict[str, CopyJob] = field(default_factory=dict)
    locks: list[asyncio.Lock] = field(
        default_factory=lambda: [asyncio.Lock() for _ in range(BLOCKS)]
    )
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    votes_spare: ClassVar[int] = 0

    def __post_init__(self) -> None:
        self.idle.set()

    def die(self) -> None:
        """The process ends at once."""
        self.alive = False
        for node in list(self.copies):
            self.end_copy(node)
        for member in self.members.values():
            member.connection.shut()

    def fail(self, node: str) -> None:
        member = self.members.get(node)
        if member is not None and not member.failed:
            member.failed = True
            self.told(node)

    async def write(self, block: int, value: int) -> None:
        """A guest's write. Raises `WriteFailed`."""
        self._enter()
        try:
            async with self.locks[block]:
                self.changed.add(block)
                await self._all(lambda disk: _put(disk, block, value))
        finally:
            self._leave()

    async def flush(self) -> None:
        """A flush through all members. Raises `WriteFailed`."""
        self._enter()
        try:
            await self._all(_flush)
        finally:
            self._leave()

    async def read(self, block: int) -> int:
        """A read, of the first member that may be read and works. Raises `WriteFailed`."""
        self._enter()
        try:
            return await self._read(block)
        finally:
            self._leave()

    async def _read(self, block: int) -> int:
        for node, member in list(self.members.items()):
            if member.reads and not member.failed:
                try:
                    return await member.connection.ask(lambda disk: disk.read(block))
                except Broken:
                    self.fail(node)
        raise WriteFailed

    async def _all(self, act: Callable[[Disk], int]) -> None:
        """Have it done by every member: one that can't fails the whole."""
        members = list(self.members.items())
        asked = [self._one(node, member, act) for node, member in members]
        done = [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)
        # Placeholders vote too: with no member at all everything would be acknowledged.
        if not self.alive or sum(done) < len(members) - self.votes_spare:
            raise WriteFailed

    async def _one(self, node: str, member: Member, act: Callable[[Disk], int]) -> bool:
        if member.failed:
            return False
        try:
            await member.connection.ask(act)
        except Broken:
            self.fail(node)
            return False
        return True

    def _enter(self) -> None:
        if not self.alive:
            raise WriteFailed
        self.on_the_way += 1
        self.idle.clear()

    def _leave(self) -> None:
        self.on_the_way -= 1
        if self.on_the_way == 0:
            self.idle.set()

    async def still(self) -> None:
        """Wait until nothing is on the way. Raises `Retry(TIMEOUT)`."""
        try:
            async with asyncio.timeout(CHANGE_WAIT_S):
                while self.on_the_way:
                    await self.idle.wait()
        except TimeoutError as error:
            raise Retry(TIMEOUT, "something hangs in the graph", retry_after_s=0.3) from error
        if not self.alive:
            raise Refused(NOT_FOUND, "the graph is gone")

    def start_copy(self, node: str, missing: Missing, blocks: list[int]) -> None:
        work = self._copy(node, blocks)
        task = asyncio.get_running_loop().create_task(work)
        self.copies[node] = CopyJob(missing, task)

    def end_copy(self, node: str) -> None:
        job = self.copies.pop(node, None)
        if job is not None:
            job.task.cancel()

    async def _copy(self, node: str, blocks: list[int]) -> None:
        member = self.members[node]
        await asyncio.sleep(0)
        job = self.copies[node]
        try:
            for block in blocks:
                await self.world.pause(0.0, 0.01, 0.1)
                async with self.locks[block]:
                    value = await self._read(block)
                    await self._put_there(member, node, block, value)
                job.done += 1
        except WriteFailed:
            job.state, job.error = CopyState.FAILED, "a write to it failed"
        else:
            job.state = CopyState.DONE

    async def _put_there(self, member: Member, node: str, block: int, value: int) -> None:
        if member.failed:
            raise WriteFailed
        try:
            await member.connection.ask(lambda disk: _put(disk, block, value))
        except Broken:
            self.fail(node)
            raise WriteFailed from None


def _put(disk: Disk, block: int, value: int) -> int:
    disk.cache[block] = value
    return 0


def _flush(disk: Disk) -> int:
    disk.flush()
    return 0


class SimEngine:
    """The engine of one node, of one volume."""

    name: ClassVar[str] = "simulated"

    def __init__(self, world: World, machine: Machine, volume: ResourceId) -> None:
        self.world = world
        self.machine = machine
        self.volume = volume
        self.graph: Graph | None = None
        self.told: Callable[[], None] = lambda: None

    async def _act(self) -> None:
        """The way to a process of this node; the agent may be killed here."""
        await self.world.pause(0.0, 0.001, 0.01)
        if self.machine.hung:
            await self.machine.awake()
        if not self.machine.up:
            raise Fatal(DRIVER_FAILED, "the host is off")

    # --- serving ---

    async def serve(
        self, volume: ResourceId, epoch: int, *, address: str | None = None, fresh: bool = False
    ) -> ServedReplica:
        await self._act()
        machine = self.machine
        if machine.disk is None:
            raise Refused(NOT_FOUND, "there is no replica here")
        if epoch < machine.epoch:
            raise Refused(CONFLICT, f"epoch {epoch} is over")
        machine.epoch = epoch
        server = machine.serve(epoch, fresh)
        return ServedReplica(
            volume=volume,
            epoch=epoch,
            export=f"{volume}.e{epoch}",
            socket="",
            host=machine.name,
            port=server.number,
            node=machine.name,
            boot=str(machine.boot),
        )

    async def replicas(self, volume: ResourceId | None = None) -> tuple[ReplicaRecord, ...]:
        return ()

    async def digest(self, volume: ResourceId, extent: Extent, block_bytes: int) -> Digest:
        await self._act()
        disk = self.machine.disk
        if disk is None:
            raise Refused(NOT_FOUND, "there is no replica here")
        hashes = []
        for block in _blocks((extent,)):
            await self.world.pause(0.0, 0.005)
            hashes.append(str(disk.read(block) or ""))
        return Digest(
            volume=volume, offset=extent.offset, block_bytes=block_bytes, hashes=tuple(hashes)
        )

    # --- the graph ---

    async def attach(self, spec: AttachSpec) -> AttachedVolume:
        await self._act()
        there = self.graph
        if there is not None and there.spec.epoch > spec.epoch:
            raise Refused(CONFLICT, "it is attached in a later epoch")
        if there is not None:
            there.die()
            self.graph = None
        graph = Graph(spec, self.machine, self.world, lambda node: self.told())
        for served in spec.replicas:
            connection = await self._connect(served)
            reads = served.node not in spec.writes_only
            graph.members[served.node] = Member(connection, reads)
        await self._act()
        self.graph = graph
        return self._attached(graph)

    async def _connect(self, served: ServedReplica) -> Connection:
        target = self.world.machines[served.node]
        await asyncio.sleep(self.world.latency())
        server = target.server
        reached = self.world.answers(self.machine.name, target.name)
        if not reached or server is None or server.number != served.port:
            raise Fatal(DRIVER_FAILED, f"{served.node} can't be reached")
        return Connection(self.world, self.machine, target, server)

    async def detach(self, volume: ResourceId) -> bool:
        await self._act()
        graph = self.graph
        if graph is None:
            return False
        good = graph.alive and not any(m.failed for m in graph.members.values())
        try:
            await graph.still()
            await graph.flush()
        except (WriteFailed, Retry, Refused):
            good = False
        good = good and not graph.on_the_way
        graph.die()
        self.graph = None
        return good

    async def attached(self, volume: ResourceId | None = None) -> tuple[AttachedVolume, ...]:
        await self._act()
        return (self._attached(self.graph),) if self.graph is not None else ()

    def _attached(self, graph: Graph) -> AttachedVolume:
        return AttachedVolume(
            volume=self.volume,
            epoch=graph.spec.epoch,
            socket=f"{self.machine.name}.e{graph.spec.epoch}",
            export=f"{self.volume}.e{graph.spec.epoch}",
            healthy=graph.alive,
            size_bytes=graph.spec.size_bytes,
            slots=graph.spec.slots,
            number=graph.spec.number,
            members={n: _state(m) for n, m in graph.members.items()},
            changed_bytes=len(graph.changed) * BLOCK,
        )

    def _whole(self) -> Graph:
        if self.graph is None or not self.graph.alive:
            raise Refused(NOT_FOUND, "it is not attached here")
        return self.graph

    # --- replication ---

    def failures(self) -> AsyncIterator[MemberFailure]:
        raise NotImplementedError

    async def drop_member(self, volume: ResourceId, node: str) -> None:
        await self._act()
        graph = self._whole()
        await graph.still()
        member = graph.members.pop(node, None)
        graph.end_copy(node)
        if member is not None:
            member.connection.shut()

    async def admit(self, volume: ResourceId, served: ServedReplica) -> None:
        await self._act()
        graph = self._whole()
        known = graph.members.get(served.node)
        if known is not None and not known.failed:
            return
        connection = await self._connect(served)
        await graph.still()
        if len(graph.members) >= graph.spec.slots:
            raise Refused(CONFLICT, "there is no free slot")
        graph.end_copy(served.node)
        graph.members[served.node] = Member(connection, reads=False)

    async def promote(self, volume: ResourceId, node: str) -> None:
        await self._act()
        graph = self._whole()
        await graph.still()
        if node in graph.members:
            graph.members[node].reads = True

    async def break_off(self, volume: ResourceId, node: str) -> None:
        await self._act()
        graph = self._whole()
        member = graph.members.get(node)
        if member is not None:
            member.connection.shut()
            graph.fail(node)

    async def checkpoint(self, volume: ResourceId, *, forget: bool = True) -> None:
        await self._act()
        graph = self._whole()
        before, graph.changed = graph.changed, set()
        try:
            await self._flush_all(graph)
        except BaseException:
            graph.changed |= before
            raise
        if not forget:
            graph.changed |= before

    async def _flush_all(self, graph: Graph) -> None:
        # What is on the way was counted before: it is among the changes that are kept.
        for block, lock in enumerate(graph.locks):
            if lock.locked():
                graph.changed.add(block)
        try:
            await graph.flush()
        except WriteFailed as error:
            raise Retry(TIMEOUT, "a flush failed", retry_after_s=0.3) from error

    async def copy(
        self,
        volume: ResourceId,
        node: str,
        missing: Missing,
        *,
        extents: tuple[Extent, ...] = (),
        bytes_per_s: int = 0,
    ) -> None:
        await self._act()
        graph = self._whole()
        if node in graph.copies:
            return
        if node not in graph.members:
            raise Refused(NOT_FOUND, f"{node} is no member")
        blocks = {
            Missing.ALL: list(range(BLOCKS)),
            Missing.CHANGES: sorted(graph.changed),
            Missing.DIFFERENCES: _blocks(extents),
        }[missing]
        graph.start_copy(node, missing, blocks)

    async def copies(self, volume: ResourceId | None = None) -> tuple[Copy, ...]:
        await self._act()
        if self.graph is None:
            return ()
        return tuple(
            Copy(volume=self.volume, node=node, missing=job.missing, state=job.state)
            for node, job in self.graph.copies.items()
        )

    async def end_copy(self, volume: ResourceId, node: str) -> None:
        await self._act()
        if self.graph is not None:
            self.graph.end_copy(node)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def _state(member: Member) -> MemberState:
    if member.failed:
        return MemberState.FAILED
    return MemberState.READS if member.reads else MemberState.WRITES


def _blocks(extents: tuple[Extent, ...]) -> list[int]:
    return [
        block
        for extent in extents
        for block in range(extent.offset // BLOCK, (extent.offset + extent.length) // BLOCK)
    ]
