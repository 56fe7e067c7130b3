"""What the holder's node asks of the hosts of a volume's replicas, itself among them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from trivet.contracts.errors import TIMEOUT, Retry, TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.endpoints.node_replica_digest import ENDPOINT as DIGEST
from trivet.contracts.storage.endpoints.node_replica_digest import DigestRequest
from trivet.contracts.storage.endpoints.node_replica_serve import ENDPOINT as SERVE
from trivet.contracts.storage.endpoints.node_replica_serve import ServeRequest
from trivet.contracts.storage.engine import ServedReplica
from trivet.contracts.storage.replication import Digest, Extent, Replication
from trivet.runtime.service import Runtime
from trivet.storage.node.serving import Serving

AGAIN_S = 0.1


class Hosts(Protocol):
    """The hosts of replicas."""

    async def serve(
        self, volume: ResourceId, epoch: int, node: str, within_s: float
    ) -> ServedReplica:
        """Have the replica on `node` served by a new server. Raises `Refused(CONFLICT)` where
        the epoch is over, and what else kept it from answering `within_s`."""
        ...

    async def digest(
        self, volume: ResourceId, node: str, extent: Extent, block_bytes: int
    ) -> Digest:
        """Hash a part of the replica on `node` there. Raises `TrivetError`."""
        ...


class HostsOnBus:
    """The hosts as they are reached over the bus."""

    def __init__(
        self,
        runtime: Runtime,
        serving: Serving,
        engine: Replication,
        told: Callable[[ServedReplica], None],
    ) -> None:
        self._told = told
        self._runtime = runtime
        self._serving = serving
        self._engine = engine

    async def serve(
        self, volume: ResourceId, epoch: int, node: str, within_s: float
    ) -> ServedReplica:
        """Ask until it serves, or the time is over: what is not possible yet may be soon."""
        clock = self._runtime.clock
        until = clock.monotonic() + within_s
        while True:
            left_s = max(until - clock.monotonic(), AGAIN_S)
            try:
                served = await self._serve_once(volume, epoch, node, left_s)
                self._told(served)
                return served
            except (Retry, TimeoutError) as error:
                if clock.monotonic() + AGAIN_S >= until:
                    raise _as_retry(error) from error
            await clock.sleep(AGAIN_S)

    async def _serve_once(
        self, volume: ResourceId, epoch: int, node: str, within_s: float
    ) -> ServedReplica:
        if node == self._runtime.node:
            async with asyncio.timeout(within_s):
                return await self._serving.serve(volume, epoch, fresh=True)
        request = ServeRequest(volume=volume, epoch=epoch, remote=True, fresh=True)
        return await self._runtime.client.call(SERVE, request, node=node, timeout_s=within_s)

    async def digest(
        self, volume: ResourceId, node: str, extent: Extent, block_bytes: int
    ) -> Digest:
        """Ask that host, or the engine here."""
        if node == self._runtime.node:
            return await self._engine.digest(volume, extent, block_bytes)
        request = DigestRequest(volume=volume, extent=extent, block_bytes=block_bytes)
        found = await self._runtime.client.call(DIGEST, request, node=node)
        return Digest(
            volume=volume, offset=extent.offset, block_bytes=block_bytes, hashes=found.hashes
        )


def _as_retry(error: Exception) -> TrivetError:
    if isinstance(error, TrivetError):
        return error
    return Retry(TIMEOUT, "the replica's server did not start in time")
