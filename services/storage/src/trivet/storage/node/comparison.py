"""Comparing a replica with one that is read, and copying what differs, while the guest writes.

Each host hashes its own, so that little but the differences travels. A block that is being written
meanwhile may be found to differ, and is copied in vain: that does no harm, for the copy keeps
the order with the guest's writes. One that is found equal is equal: both replicas are members and
get every write that either has, or had, not yet when it was hashed.

What was compared is known only here: an agent that is killed compares from the beginning.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from trivet.contracts.errors import DRIVER_FAILED, Fatal, TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.replication import (
    UNREADABLE,
    Copy,
    CopyState,
    Extent,
    Replication,
)
from trivet.contracts.storage.volume import Graph, Missing
from trivet.runtime.clock import Clock
from trivet.storage.domain.differences import differing
from trivet.storage.node.hosts import Hosts

log = logging.getLogger(__name__)

PIECE_BYTES = 256 * 2**20
BLOCK_BYTES = 64 * 1024
COPY_LOOK_S = 0.05
AGAIN_S = 2.0

Key = tuple[ResourceId, str]


class Comparisons:
    """Those of this node's graphs: running, and done. `rewritten` is told of how many blocks that
    a node's disk did not give back have been written there again."""

    def __init__(
        self,
        engine: Replication,
        hosts: Hosts,
        clock: Clock,
        wake: Callable[[ResourceId], None],
        *,
        rewritten: Callable[[ResourceId, str, int], Awaitable[None]] | None = None,
        piece_bytes: int = PIECE_BYTES,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self._engine = engine
        self._hosts = hosts
        self._clock = clock
        self._wake = wake
        self._rewritten = rewritten
        self._piece_bytes = piece_bytes
        self._block_bytes = block_bytes
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._done: dict[Key, Graph] = {}
        self._far: dict[Key, int] = {}

    def running(self, volume: ResourceId) -> frozenset[str]:
        """The nodes whose replicas of `volume` are being compared."""
        return frozenset(node for id_, node in self._running if id_ == volume)

    def done(self, volume: ResourceId) -> Mapping[str, Graph]:
        """The nodes whose replicas were found, or made, equal, and in which graph."""
        return {node: graph for (id_, node), graph in self._done.items() if id_ == volume}

    def far(self, volume: ResourceId) -> Mapping[str, int]:
        """Up to which byte the comparisons of `volume` that run have come, by node."""
        return {node: self._far.get((id_, node), 0) for id_, node in self._running if id_ == volume}

    def start(
        self,
        volume: ResourceId,
        graph: Graph,
        node: str,
        against: str,
        size_bytes: int,
        bytes_per_s: int,
    ) -> None:
        """Compare the replica on `node` with that `against`, in the background."""
        key = (volume, node)
        if key in self._running:
            return
        self._done.pop(key, None)
        work = self._run(key, graph, against, size_bytes, bytes_per_s)
        self._running[key] = asyncio.get_running_loop().create_task(work)

    async def forget(self, volume: ResourceId, node: str | None = None) -> None:
        """Stop comparing, and forget what was found: the member is gone, or comes anew."""
        for key in [k for k in (*self._running, *self._done) if k[0] == volume]:
            if node not in (None, key[1]):
                continue
            self._done.pop(key, None)
            task = self._running.pop(key, None)
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """Stop all."""
        for volume, node in list(self._running):
            await self.forget(volume, node)

    async def _run(
        self, key: Key, graph: Graph, against: str, size_bytes: int, bytes_per_s: int
    ) -> None:
        volume, node = key
        try:
            for offset in range(0, size_bytes, self._piece_bytes):
                length = min(self._piece_bytes, size_bytes - offset)
                piece = Extent(offset=offset, length=length)
                self._far[key] = offset
                await self._piece(volume, node, against, piece, bytes_per_s)
            self._done[key] = graph
        except TrivetError as error:
            log.info("comparing %s on %s with %s: %s", volume, node, against, error)
            await self._clock.sleep(AGAIN_S)
        except Exception:
            log.exception("comparing %s on %s with %s failed", volume, node, against)
            await self._clock.sleep(AGAIN_S)
        finally:
            self._far.pop(key, None)
            if self._running.get(key) is asyncio.current_task():
                del self._running[key]
                self._wake(volume)

    async def _piece(
        self, volume: ResourceId, node: str, against: str, piece: Extent, bytes_per_s: int
    ) -> None:
        good, doubtful = await asyncio.gather(
            self._hosts.digest(volume, against, piece, self._block_bytes),
            self._hosts.digest(volume, node, piece, self._block_bytes),
        )
        extents = differing(good, doubtful, piece.offset + piece.length)
        if not extents:
            return
        await self._engine.end_copy(volume, node)
        await self._engine.copy(
            volume, node, Missing.DIFFERENCES, extents=extents, bytes_per_s=bytes_per_s
        )
        while (copy := await self._copy_to(volume, node)).state is CopyState.RUNNING:
            await self._clock.sleep(COPY_LOOK_S)
        if copy.state is CopyState.FAILED:
            raise Fatal(DRIVER_FAILED, f"copying to {node}: {copy.error}")
        await self._engine.end_copy(volume, node)
        unreadable = doubtful.hashes.count(UNREADABLE)
        if unreadable and self._rewritten is not None:
            await self._rewritten(volume, node, unreadable)

    async def _copy_to(self, volume: ResourceId, node: str) -> Copy:
        for copy in await self._engine.copies(volume):
            if copy.node == node:
                return copy
        raise Fatal(DRIVER_FAILED, f"the copy to {node} is gone")
