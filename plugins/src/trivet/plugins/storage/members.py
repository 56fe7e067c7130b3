"""Which replica is behind which number of a graph: a record beside the graph's socket.

The storage daemon knows what is in its slots, but not on which node that lies, nor which of its
sockets was the one it was given: QEMU connects again by itself, and whoever lost a connection once
has failed until it is dropped. So the record is written before a number is used and holds the
socket by its inode once it is connected. It lives as long as the graph, like its sockets.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from pathlib import Path

from trivet.contracts.model import Model, ResourceId
from trivet.contracts.storage.engine import AttachSpec, MemberState, ServedReplica
from trivet.plugins.storage.connections import Connection
from trivet.plugins.storage.slots import PLACEHOLDER, READS, Child, server_of

PART_SUFFIX = ".part"


class Member(Model):
    """A replica behind a number; `server` is in QEMU's words; `inode` 0: not known yet;
    `blank`: nothing was ever written to it before it came."""

    node: str
    export: str
    server: dict[str, str]
    inode: int = 0
    blank: bool = False

    @property
    def peer(self) -> str:
        """Where it is reached, in the words of `Connection`."""
        if self.server["type"] == "unix":
            return self.server["path"]
        return f"{ipaddress.ip_address(self.server['host'])} {self.server['port']}"


class GraphRecord(Model):
    """What a graph was asked to be (`number`: which one of its epoch), and its members by their
    numbers; those of numbers that are in no slot any more mean nothing."""

    number: int
    size_bytes: int
    slots: int
    thin: bool
    next: int
    members: dict[int, Member]

    def of(self, node: str) -> list[Member]:
        """What a node's replica was under any number."""
        return [member for member in self.members.values() if member.node == node]

    def numbers_of(self, node: str) -> list[int]:
        """All numbers that a node's replica ever had."""
        return [number for number, member in self.members.items() if member.node == node]

    def with_member(self, number: int, member: Member) -> GraphRecord:
        """With that number given, or changed."""
        members = {**self.members, number: member}
        return self.model_copy(update={"members": members, "next": max(self.next, number + 1)})


def first_record(spec: AttachSpec, node: str) -> GraphRecord:
    """The record of a graph about to be made."""
    members = {
        number: Member(node=r.node, export=r.export, server=server_of(r, node))
        for number, r in enumerate(spec.replicas)
    }
    return GraphRecord(
        number=spec.number,
        size_bytes=spec.size_bytes,
        slots=spec.slots,
        thin=spec.thin,
        next=spec.slots,
        members=members,
    )


def served_by(member: Member, volume: ResourceId, epoch: int) -> ServedReplica:
    """The server of a member, in the contract's words."""
    here = member.server["type"] == "unix"
    return ServedReplica(
        volume=volume,
        epoch=epoch,
        export=member.export,
        node=member.node,
        socket=member.server["path"] if here else "",
        host=None if here else member.server["host"],
        port=None if here else int(member.server["port"]),
    )


def read_record(path: Path) -> GraphRecord | None:
    """The record of a graph; None: there is none."""
    try:
        return GraphRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None


def write_record(path: Path, record: GraphRecord) -> None:
    """Replace a record as a whole. It need not outlive the machine, as its graph does not."""
    part = path.with_name(path.name + PART_SUFFIX)
    part.write_text(record.model_dump_json())
    part.rename(path)


def is_connected(member: Member, found: Collection[Connection]) -> bool:
    """Whether the connection that a member was given is still there."""
    return any(c.alive and c.peer == member.peer and member.inode in (0, c.inode) for c in found)


def states(
    record: GraphRecord, current: Mapping[int, Child], found: Collection[Connection]
) -> dict[str, MemberState]:
    """The members in the slots, by node."""
    told: dict[str, MemberState] = {}
    for child in current.values():
        member = record.members.get(child.number)
        if child.kind == PLACEHOLDER or member is None:
            continue
        state = MemberState.READS if child.kind == READS else MemberState.WRITES
        told[member.node] = state if is_connected(member, found) else MemberState.FAILED
    return dict(sorted(told.items()))
