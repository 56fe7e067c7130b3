"""Changing what a graph's slots hold while guests write through them.

Each change has the same two steps: the new child is added beside the old one, the old one is
removed. Between them the slot needs the vote of either, the other slots' votes are all needed as
ever. A change that was cut is finished before the next one begins. Nothing here knows who is in
sync; it keeps only that a replica is in a slot of its own, the one of this node in the first, for
reads go there.

A step waits for the requests on the way, and so for a replica that hangs: to drop one ends its
connections when it does not let go by itself.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from trivet.contracts.errors import CONFLICT, NOT_FOUND, Fatal, Refused
from trivet.contracts.storage.codes import SHRINK
from trivet.contracts.storage.engine import ServedReplica
from trivet.plugins.storage.connections import Connection, connections, shut_down
from trivet.plugins.storage.copies import end_copies
from trivet.plugins.storage.members import (
    GraphRecord,
    Member,
    is_connected,
    read_record,
    write_record,
)
from trivet.plugins.storage.nbd_client import nbd
from trivet.plugins.storage.qmp import ask, ask_all
from trivet.plugins.storage.slots import (
    PLACEHOLDER,
    READS,
    WRITES,
    Child,
    Nodes,
    Slots,
    placeholder_nodes,
    read_slots,
    replica_nodes,
    server_of,
    slot_name,
    writes_only_node,
)
from trivet.plugins.storage.sockets import Socket

LET_GO_S = 1.0
"""How long a member that is dropped may take to finish what is on the way."""
REACHED_S = 3.0


class SlotChanges:
    """The slots of one graph on this node; one change at a time is its caller's duty."""

    def __init__(self, graph: Socket, node: str) -> None:
        self.graph = graph
        self._node = node

    async def drop(self, node: str) -> None:
        """Let a placeholder vote for that node's replica."""
        record = await self._record()
        task = asyncio.ensure_future(self._drop(node))
        latest = record.of(node)[-1:]
        lost = any(not is_connected(member, self._connections()) for member in latest)
        done, _ = await asyncio.wait([task], timeout=0 if lost else LET_GO_S)
        if not done:
            await asyncio.to_thread(self.break_off, node)
        await task

    async def admit(self, served: ServedReplica) -> None:
        """Take a replica in for writes only."""
        slots, record = await self.settled()
        child = _child_of(slots, record, served.node)
        if child is not None:
            member = record.members[child.number]
            if member.export == served.export and is_connected(member, self._connections()):
                return
            raise Refused(CONFLICT, f"{served.node} is to be dropped from {self._name} first")
        free = slots.free()
        if not free:
            raise Refused(CONFLICT, f"{self._name} has no slot for {served.node}")
        member = Member(
            node=served.node,
            export=served.export,
            server=server_of(served, self._node),
            blank=served.blank,
        )
        await _is_larger(member, record.size_bytes)  # it can be reached, before anything changes
        slot = free[-1]
        if served.node == self._node:
            if free[0] != 0:
                slots, record = await self._make_way(slots, record, slot)
            slot = 0
        await self._place(slots, record, slot, member, WRITES)

    async def promote(self, node: str) -> None:
        """Let a member serve reads, over a connection of its own."""
        slots, record = await self.settled()
        child = _child_of(slots, record, node)
        if child is None:
            raise Refused(NOT_FOUND, f"{node} has no replica in {self._name}")
        if child.kind == WRITES:
            slot = slots.holding(child.number)
            assert slot is not None
            await self._place(slots, record, slot, record.members[child.number], READS)

    async def writes_only(self, node: str) -> tuple[GraphRecord, int]:
        """The number of a member that serves no read, and the record."""
        slots, record = await self.settled()
        child = _child_of(slots, record, node)
        if child is None:
            raise Refused(NOT_FOUND, f"{node} has no replica in {self._name}")
        if child.kind != WRITES:
            raise Refused(CONFLICT, f"{node} serves reads in {self._name} already")
        return record, child.number

    async def reads(self, node: str) -> bool:
        """Whether that node's replica serves reads."""
        slots, record = await self.settled()
        child = _child_of(slots, record, node)
        return child is not None and child.kind == READS

    def break_off(self, node: str) -> None:
        """End a member's connections. Blocks, though never on the graph."""
        record = read_record(self.graph.record)
        if record is None or self.graph.daemon is None:
            return
        for peer in {member.peer for member in record.of(node)}:
            shut_down(self.graph.daemon, peer)

    async def settled(self) -> tuple[Slots, GraphRecord]:
        """What the slots hold, after a change that was cut is finished."""
        record = await self._record()
        slots = await self._look()
        cut = [(s, child) for s, found in slots.children.items() for child in found[:-1]]
        for slot, child in cut:
            await self._remove(slots, slot, child)
        return (await self._look() if cut else slots), record

    # --- inside ----------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return f"the graph of {self.graph.volume}"

    async def _record(self) -> GraphRecord:
        record = await asyncio.to_thread(read_record, self.graph.record)
        if record is None or self.graph.daemon is None:
            raise Refused(NOT_FOUND, f"{self.graph.volume} is not attached here with slots")
        return record

    async def _look(self) -> Slots:
        return read_slots(await ask(self.graph.monitor, "x-debug-query-block-graph"))

    async def _drop(self, node: str) -> None:
        slots, record = await self.settled()
        await end_copies(self.graph, record.numbers_of(node))
        for slot in _slots_of(slots, record, node):
            number = record.next
            record = record.model_copy(update={"next": number + 1})
            await self._write(record)
            nodes = placeholder_nodes(number, record.size_bytes)
            await self._put(slots, slot, nodes, Child(PLACEHOLDER, number))

    async def _make_way(
        self, slots: Slots, record: GraphRecord, free: int
    ) -> tuple[Slots, GraphRecord]:
        """Have what is in the first slot in a free one too, so that the first can be another's."""
        first = slots.current()[0]
        member = record.members[first.number]
        if len(_slots_of(slots, record, member.node)) == 1:
            await self._place(slots, record, free, member, first.kind)
        return await self.settled()

    async def _place(
        self, slots: Slots, record: GraphRecord, slot: int, member: Member, kind: str
    ) -> None:
        """Have a replica in that slot, under a new number."""
        larger = await _is_larger(member, record.size_bytes)
        number = record.next
        before = {c.inode for c in self._connections()}
        record = record.with_member(number, member.model_copy(update={"inode": 0}))
        await self._write(record)
        nodes = replica_nodes(
            number,
            member.server,
            member.export,
            record.size_bytes,
            thin=record.thin,
            larger=larger,
        )
        if kind == WRITES:
            nodes.append(writes_only_node(number))
        await self._add_nodes(nodes)
        made = [
            c.inode for c in self._connections() if c.peer == member.peer and c.inode not in before
        ]
        if len(made) == 1:
            with_inode = member.model_copy(update={"inode": made[0]})
            await self._write(record.with_member(number, with_inode))
        await self._put(slots, slot, [], Child(kind, number))

    async def _put(self, slots: Slots, slot: int, nodes: Nodes, new: Child) -> None:
        """Add a child beside the slot's old one, and take that out."""
        await self._add_nodes(nodes)
        parent = slot_name(slot)
        await ask(self.graph.monitor, "x-blockdev-change", parent=parent, node=new.name)
        await self._remove(slots, slot, slots.current()[slot])

    async def _remove(self, slots: Slots, slot: int, old: Child) -> None:
        """Take a child out of its slot, and its nodes away."""
        out = {"parent": slot_name(slot), "child": slots.edge(slot, old)}
        gone = [("blockdev-del", {"node-name": name}) for name in slots.nodes(old)]
        await ask_all(self.graph.monitor, ("x-blockdev-change", out), *gone)

    async def _add_nodes(self, nodes: Nodes) -> None:
        """Add nodes, all or none."""
        made: list[str] = []
        try:
            for node in nodes:
                await ask(self.graph.monitor, "blockdev-add", **node)
                made.append(node["node-name"])
        except BaseException:
            for name in reversed(made):
                with suppress(Fatal):
                    await ask(self.graph.monitor, "blockdev-del", **{"node-name": name})
            raise

    async def _write(self, record: GraphRecord) -> None:
        await asyncio.to_thread(write_record, self.graph.record, record)

    def _connections(self) -> list[Connection]:
        assert self.graph.daemon is not None
        return connections(self.graph.daemon)


def _slots_of(slots: Slots, record: GraphRecord, node: str) -> list[int]:
    """The slots in which a node's replica is: one, but where it made way and nobody came."""
    return [
        slot
        for slot, child in slots.current().items()
        if child.kind != PLACEHOLDER and record.members[child.number].node == node
    ]


def _child_of(slots: Slots, record: GraphRecord, node: str) -> Child | None:
    """What a node's replica is in the slots."""
    found = _slots_of(slots, record, node)
    return slots.current()[found[0]] if found else None


async def _is_larger(member: Member, size_bytes: int) -> bool:
    """Whether a replica that can be reached is larger than the volume; smaller is refused."""
    async with nbd(member.server, member.export, timeout_s=REACHED_S) as client:
        if client.size_bytes < size_bytes:
            have = f"{client.size_bytes} bytes of {size_bytes}"
            raise Refused(SHRINK, f"{member.export} has {have}")
        return client.size_bytes > size_bytes
