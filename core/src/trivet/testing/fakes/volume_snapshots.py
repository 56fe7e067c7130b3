"""What the fake volume engine does to make parts of snapshots alike on several nodes."""

from __future__ import annotations

import hashlib

from trivet.contracts.driver import DriverContext
from trivet.contracts.errors import CONFLICT, DRIVER_FAILED, NOT_FOUND, Fatal, Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import ServedReplica, SnapshotRecord
from trivet.contracts.storage.replication import Digest, Extent
from trivet.testing.fakes.volume_machine import BLOCK, MACHINES, FakeMachine, FakeSnapshot

OFFERED = ".e0"


class FakeSnapshotParts:
    """The part of the fake engine that makes parts of snapshots alike."""

    machine: FakeMachine
    _context: DriverContext

    def _begin(self, operation: str, subject: str) -> None:
        raise NotImplementedError

    def _end(self, operation: str) -> None:
        raise NotImplementedError

    async def begin_part(
        self, snapshot: ResourceId, volume: ResourceId, pool: ResourceId, size_bytes: int
    ) -> SnapshotRecord:
        """Have a part here, as the replica is now."""
        self._begin("begin_part", snapshot)
        kept = self.machine.snapshots.setdefault(snapshot, {})
        if volume not in kept:
            if pool not in self.machine.pools:
                raise Refused(NOT_FOUND, f"pool {pool} is not open")
            replica = self.machine.replicas.get(volume)
            blocks = dict(replica.blocks) if replica is not None and replica.complete else {}
            kept[volume] = FakeSnapshot(pool, size_bytes, blocks)
        self._end("begin_part")
        return self._part_record(snapshot, volume)

    async def digest_part(
        self, snapshot: ResourceId, volume: ResourceId, extent: Extent, block_bytes: int
    ) -> Digest:
        """Hash a part of what is kept here."""
        self._begin("digest_part", snapshot)
        part = self._part(snapshot, volume)
        end = min(extent.offset + extent.length, part.size_bytes)
        hashes = []
        for at in range(extent.offset, end, block_bytes):
            numbers = range(at // BLOCK, -(-min(at + block_bytes, end) // BLOCK))
            if not any(n in part.blocks for n in numbers):
                hashes.append("")
                continue
            data = b"".join(part.blocks.get(n, bytes(BLOCK)) for n in numbers)
            hashes.append(hashlib.blake2b(data, digest_size=16).hexdigest() if any(data) else "")
        return Digest(
            volume=volume, offset=extent.offset, block_bytes=block_bytes, hashes=tuple(hashes)
        )

    async def offer_part(
        self, snapshot: ResourceId, volume: ResourceId, address: str
    ) -> ServedReplica:
        """Serve a complete part."""
        self._begin("offer_part", snapshot)
        part = self._part(snapshot, volume)
        if not part.complete:
            raise Refused(NOT_FOUND, f"{volume} in {snapshot} is not complete here")
        self._end("offer_part")
        return ServedReplica(
            volume=volume,
            epoch=0,
            export=f"{snapshot}.{volume}{OFFERED}",
            socket="",
            host=address,
            port=10809,
            node=self._context.node,
            size_bytes=part.size_bytes,
        )

    async def fill_part(
        self,
        snapshot: ResourceId,
        volume: ResourceId,
        offered: ServedReplica,
        extents: tuple[Extent, ...],
        bytes_per_s: int = 0,
    ) -> None:
        """Copy those extents of what is offered."""
        self._begin("fill_part", snapshot)
        part = self._part(snapshot, volume)
        if part.complete:
            raise Refused(CONFLICT, f"{volume} in {snapshot} is complete, and never changes")
        there = MACHINES[self._context.state_dir, offered.node].snapshots
        named = offered.export.removesuffix(OFFERED).partition(".")[0]
        source = there.get(ResourceId(named), {}).get(volume)
        if source is None or not source.complete:
            raise Fatal(DRIVER_FAILED, f"{offered.node} serves no {volume} in {snapshot}")
        for extent in extents:
            for n in range(extent.offset // BLOCK, (extent.offset + extent.length) // BLOCK):
                if n in source.blocks:
                    part.blocks[n] = source.blocks[n]
                else:
                    part.blocks.pop(n, None)
        self._end("fill_part")

    async def complete_part(self, snapshot: ResourceId, volume: ResourceId) -> SnapshotRecord:
        """Record that the part is complete."""
        self._begin("complete_part", snapshot)
        self._part(snapshot, volume).complete = True
        self._end("complete_part")
        return self._part_record(snapshot, volume)

    async def drop_part(self, snapshot: ResourceId, volume: ResourceId) -> None:
        """Remove one volume of a snapshot."""
        self._begin("drop_part", snapshot)
        kept = self.machine.snapshots.get(snapshot, {})
        kept.pop(volume, None)
        if not kept:
            self.machine.snapshots.pop(snapshot, None)
        self._end("drop_part")

    def _part(self, snapshot: ResourceId, volume: ResourceId) -> FakeSnapshot:
        part = self.machine.snapshots.get(snapshot, {}).get(volume)
        if part is None:
            raise Refused(NOT_FOUND, f"nothing of {volume} in {snapshot} is here")
        return part

    def _part_record(self, snapshot: ResourceId, volume: ResourceId) -> SnapshotRecord:
        part = self._part(snapshot, volume)
        return SnapshotRecord(
            snapshot=snapshot,
            volume=volume,
            pool=part.pool,
            size_bytes=part.size_bytes,
            used_bytes=part.used_bytes(),
            complete=part.complete,
        )
