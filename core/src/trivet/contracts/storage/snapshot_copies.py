"""The law for engines that keep a snapshot on several nodes: a part is made alike to another's.

What is cut on one node is the snapshot. Another node begins its part as the replica that it has,
which is nearly the same, and gets what differs by the hashes that both make of their own. A part
that is not complete serves for nothing, and may be gone on with at any time.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import ServedReplica, SnapshotRecord
from trivet.contracts.storage.replication import Digest, Extent


@runtime_checkable
class SnapshotCopies(Protocol):
    """What an engine has besides, that makes parts of snapshots alike. All acts are idempotent."""

    async def begin_part(
        self, snapshot: ResourceId, volume: ResourceId, pool: ResourceId, size_bytes: int
    ) -> SnapshotRecord:
        """Have a part here, not complete: with the bytes of this node's replica of the volume as
        it is now, or with none. One that is there is left as it is. A full pool raises
        `Retry(NO_SPACE)`; `Refused(NOT_FOUND)` where the pool is not open."""
        ...

    async def digest_part(
        self, snapshot: ResourceId, volume: ResourceId, extent: Extent, block_bytes: int
    ) -> Digest:
        """Hash that part of what is kept here, complete or not."""
        ...

    async def offer_part(
        self, snapshot: ResourceId, volume: ResourceId, address: str
    ) -> ServedReplica:
        """Serve a complete part to one other node, for reading, at that address of this one; it
        ends by itself when that one has gone."""
        ...

    async def fill_part(
        self,
        snapshot: ResourceId,
        volume: ResourceId,
        offered: ServedReplica,
        extents: tuple[Extent, ...],
        bytes_per_s: int = 0,
    ) -> None:
        """Copy those extents of what is offered into the part here, which is not complete, at
        that speed (0: unbounded)."""
        ...

    async def complete_part(self, snapshot: ResourceId, volume: ResourceId) -> SnapshotRecord:
        """Have all of the part on disk, and record that it is complete."""
        ...

    async def drop_part(self, snapshot: ResourceId, volume: ResourceId) -> None:
        """Remove one volume of a snapshot; none there is fine."""
        ...
