"""Making a part of a snapshot here alike to that of the node that has all of it, piece by piece.

How far it has come is known only here: a service that is killed compares from the beginning, and
finds equal what it had copied before.
"""

from __future__ import annotations

import logging

from trivet.contracts.errors import CONFLICT, NOT_SUPPORTED, Refused, Retry
from trivet.contracts.model import MIB, ResourceId
from trivet.contracts.storage.endpoints.node_replica_digest import ENDPOINT as DIGEST
from trivet.contracts.storage.endpoints.node_replica_digest import DigestRequest
from trivet.contracts.storage.endpoints.node_snapshot_offer import ENDPOINT as OFFER
from trivet.contracts.storage.endpoints.node_snapshot_offer import OfferRequest
from trivet.contracts.storage.engine import SnapshotRecord, VolumeEngine
from trivet.contracts.storage.pool import Pool
from trivet.contracts.storage.replication import Digest, Extent
from trivet.contracts.storage.snapshot import Snapshot, SnapshotPart
from trivet.contracts.storage.snapshot_copies import SnapshotCopies
from trivet.runtime.collection import Collection
from trivet.runtime.service import Runtime
from trivet.storage.domain.differences import differing

log = logging.getLogger(__name__)

PIECE_BYTES = 64 * MIB
BLOCK_BYTES = 64 * 1024

Key = tuple[ResourceId, ResourceId]


class PartCopies:
    """The copies that are being made here."""

    def __init__(self, runtime: Runtime, pools: Collection[Pool], engine: VolumeEngine) -> None:
        self._runtime = runtime
        self._pools = pools
        self._engine = engine
        self._done: dict[Key, int] = {}

    def able(self) -> SnapshotCopies:
        """The engine. Raises `Refused(NOT_SUPPORTED)` where it makes no copies."""
        if not isinstance(self._engine, SnapshotCopies):
            raise Refused(NOT_SUPPORTED, f"{self._engine.name} keeps snapshots on one node")
        return self._engine

    def forget(self, snapshot: ResourceId) -> None:
        """A snapshot is not copied any more."""
        self._done = {key: at for key, at in self._done.items() if key[0] != snapshot}

    async def step(self, snapshot: Snapshot, part: SnapshotPart) -> SnapshotRecord | None:
        """Make one piece more alike; the record once all of it is. Raises `TrivetError`."""
        id_, volume, able = snapshot.meta.id, part.volume, self.able()
        pool = self._pools.get(part.pool)
        if pool is None:
            raise Retry(CONFLICT, f"pool {part.pool} is not known here yet")
        await able.begin_part(id_, volume, pool.meta.id, part.size_bytes)
        at = self._done.get((id_, volume), 0)
        if at < part.size_bytes:
            length = min(PIECE_BYTES, part.size_bytes - at)
            await self._piece(able, id_, part, Extent(offset=at, length=length))
            self._done[id_, volume] = at + length
            if at + length < part.size_bytes:
                return None
        record = await able.complete_part(id_, volume)
        self._done.pop((id_, volume), None)
        return record

    async def _piece(
        self, able: SnapshotCopies, snapshot: ResourceId, part: SnapshotPart, piece: Extent
    ) -> None:
        client, volume = self._runtime.client, part.volume
        mine = await able.digest_part(snapshot, volume, piece, BLOCK_BYTES)
        asked = DigestRequest(
            volume=volume, extent=piece, block_bytes=BLOCK_BYTES, snapshot=snapshot
        )
        told = await client.call(DIGEST, asked, node=part.node)
        good = Digest(
            volume=volume, offset=piece.offset, block_bytes=BLOCK_BYTES, hashes=told.hashes
        )
        extents = differing(good, mine, piece.offset + piece.length)
        if not extents:
            return
        wanted = OfferRequest(snapshot=snapshot, volume=volume)
        offered = await client.call(OFFER, wanted, node=part.node)
        rate = self._runtime.settings.storage.resync_bytes_per_s
        await able.fill_part(snapshot, volume, offered, extents, rate)
        copied = sum(extent.length for extent in extents)
        log.info("%s in %s: %d bytes were copied from %s", volume, snapshot, copied, part.node)
