"""Hash a part of this node's replica, and tell or keep what was found right there."""

from __future__ import annotations

import asyncio

from trivet.contracts.errors import NOT_SUPPORTED, Refused
from trivet.contracts.storage.endpoints.node_replica_digest import (
    ENDPOINT,
    DigestRequest,
    DigestResponse,
)
from trivet.contracts.storage.replication import Replication
from trivet.contracts.storage.snapshot_copies import SnapshotCopies
from trivet.runtime.call import Call
from trivet.runtime.service import Service
from trivet.storage.node.sums import Sums
from trivet.storage.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer `replica.digest`."""
    folder = parts.runtime.settings.state_dir / "storage" / "sums" / parts.runtime.node
    sums = Sums(folder)

    async def digest(request: DigestRequest, call: Call) -> DigestResponse:
        engine = parts.engine
        if not isinstance(engine, Replication):
            raise Refused(NOT_SUPPORTED, f"{engine.name} hashes no replicas")
        first = request.extent.offset // request.block_bytes
        if request.store:
            await asyncio.to_thread(sums.write, request.volume, first, request.store)
            return DigestResponse()
        if request.snapshot is not None:
            if not isinstance(engine, SnapshotCopies):
                raise Refused(NOT_SUPPORTED, f"{engine.name} hashes no snapshots")
            part = await engine.digest_part(
                request.snapshot, request.volume, request.extent, request.block_bytes
            )
            return DigestResponse(hashes=part.hashes)
        found = await engine.digest(request.volume, request.extent, request.block_bytes)
        count = len(found.hashes)
        stored = await asyncio.to_thread(sums.read, request.volume, first, count)
        return DigestResponse(hashes=found.hashes, stored=stored)

    service.handle(ENDPOINT, digest)
