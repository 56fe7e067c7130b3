"""The law for engines that keep several replicas of an attached volume alike.

A graph that was attached with `slots` acknowledges a write when every member has it, also one for
writes only; a member that fails a write fails it, and stays (`failed`) until it is dropped. Which
members there are changes while the graph runs, each change at one instant: no write is
ever acknowledged that a member, before or after the change, did not have to have. The engine
decides nothing about who is in sync: that is recorded in the store, before it is told to act.

What a graph knows (its changes since the last checkpoint, its copies) ends with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Protocol, runtime_checkable

from pydantic import Field

from trivet.contracts.model import Model, ResourceId
from trivet.contracts.storage.engine import ServedReplica
from trivet.contracts.storage.volume import Missing


class Failed(StrEnum):
    """What a member failed at: its `connection` ended, or it answered a `write` (or a flush) or a
    `read` with an error. That may be the first word of a connection that is about to end."""

    CONNECTION = "connection"
    WRITE = "write"
    READ = "read"


class MemberFailure(Model):
    """A member failed a write or a read, or its connection ended; `node` '': the graph itself
    broke, or ended."""

    volume: ResourceId
    node: str
    error: str
    at: Failed = Failed.CONNECTION


class Extent(Model):
    """Bytes of a volume."""

    offset: int = Field(ge=0)
    length: int = Field(ge=0)


class CopyState(StrEnum):
    """How a copy to a member stands; `failed` says nothing about what was copied by then."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Copy(Model):
    """A copy to a member: `done_bytes` of `total_bytes`, which may grow."""

    volume: ResourceId
    node: str
    missing: Missing
    state: CopyState
    done_bytes: int = 0
    total_bytes: int = 0
    error: str = ""


UNREADABLE = "unreadable"
"""In the place of a block's hash: the disk gave an error for it. It is like no other block."""


class Digest(Model):
    """Hashes of a replica of this node, `block_bytes` each, from `offset` on, as hex; '' for a
    block that is all zero, `UNREADABLE` for one that the disk does not give. The hash is xxh3-128
    or stronger: the same on all nodes."""

    volume: ResourceId
    offset: int
    block_bytes: int
    hashes: tuple[str, ...]


@runtime_checkable
class Replication(Protocol):
    """What an engine has besides, that keeps more than one replica. All acts are idempotent.

    Members are named by their node. Acts on a volume that is not attached here, or attached
    without slots, raise `Refused(NOT_FOUND)`.
    """

    def failures(self) -> AsyncIterator[MemberFailure]:
        """Failures of members of all graphs of this node as they happen, where the process that
        served one here, or the graph, ended also if nobody reads or writes. Those from before it
        is asked are not told: `attached()` says which members have failed."""
        ...

    async def drop_member(self, volume: ResourceId, node: str) -> None:
        """Take a member out; a placeholder votes in its place. A copy to it ends, and is
        forgotten."""
        ...

    async def admit(self, volume: ResourceId, served: ServedReplica) -> None:
        """Take a replica in for writes only: from the return on it gets every write."""
        ...

    async def promote(self, volume: ResourceId, node: str) -> None:
        """Let a member for writes only serve reads too."""
        ...

    async def break_off(self, volume: ResourceId, node: str) -> None:
        """End a member's connections at once, also while it hangs: what waits for it fails."""
        ...

    async def checkpoint(self, volume: ResourceId, *, forget: bool = True) -> None:
        """Flush through all members, then (`forget`) forget the changes before the flush; where
        the flush fails nothing is forgotten, and this raises. `forget` is asked for only while
        nobody's changes are wanted: one memory of changes serves all members that leave."""
        ...

    async def copy(
        self,
        volume: ResourceId,
        node: str,
        missing: Missing,
        *,
        extents: tuple[Extent, ...] = (),
        bytes_per_s: int = 0,
    ) -> None:
        """Begin to copy to a member for writes only: everything, the changes since the last
        checkpoint before it left, or (`differences`) those extents. One copy a member; asked
        again, it goes on, at that speed (0: unbounded)."""
        ...

    async def copies(self, volume: ResourceId | None = None) -> tuple[Copy, ...]:
        """All copies of this node's graphs, or of that one, also those that ended."""
        ...

    async def end_copy(self, volume: ResourceId, node: str) -> None:
        """Stop a copy if it runs, and forget it."""
        ...

    async def servers(self, volume: ResourceId) -> tuple[ServedReplica, ...]:
        """How the members of a graph that have not failed were reached when they came into it:
        whoever starts again finds there whom to ask whether they are there."""
        ...

    async def greets(self, served: ServedReplica) -> bool:
        """Whether the server of a replica, here or on another node, greets a new client in good
        time: a host that hangs accepts nothing, or says nothing."""
        ...

    async def digest(self, volume: ResourceId, extent: Extent, block_bytes: int) -> Digest:
        """Hash that part of this node's own replica, as it is on the way to the disk."""
        ...
