"""The duty of the leader towards silent corruption: it has every replica read and compared.

One volume at a time, step by step, at no more than `scrub_bytes_per_s` of data; how far it came is
written down now and then, so that another leader goes on from there. A replica with rotten blocks
is recorded as stale, with what differs to be copied again from a good one; that is done by
whoever holds the volume, in the order of the guest's writes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from datetime import datetime
from functools import partial

from trivet.contracts.errors import TrivetError
from trivet.contracts.storage.disk import Disk
from trivet.contracts.storage.endpoints.node_replica_digest import (
    ENDPOINT,
    DigestRequest,
    DigestResponse,
)
from trivet.contracts.storage.replication import Extent
from trivet.contracts.storage.volume import Missing, ReplicaState, Volume
from trivet.runtime.collection import Collection
from trivet.runtime.service import Service
from trivet.storage.domain import scrub as do
from trivet.storage.domain.replication import trusted
from trivet.storage.domain.volume_status import in_sync, replica_on, stated, with_replica

log = logging.getLogger(__name__)

LOOK_S = 2.0
AGAIN_S = 0.5
SAVED_EVERY_BYTES = 4 * 2**30
FAILED_S = 30.0


class Scrubber:
    """Scrubs volumes."""

    def __init__(
        self, service: Service, volumes: Collection[Volume], disks: Collection[Disk]
    ) -> None:
        self._runtime = service.runtime
        settings = service.runtime.settings.storage
        self._every_s, self._rate = settings.scrub_every_s, settings.scrub_bytes_per_s
        self._volumes = volumes
        self._disks = disks

    async def run(self) -> None:
        """Scrub what is due, one after the other, until cancelled."""
        while True:
            now = self._runtime.clock.now()
            due = [v for v in self._volumes.list() if do.is_due(v, now, self._every_s)]
            wait_s = LOOK_S
            for volume in do.in_turn(due)[:1]:
                try:
                    await self._scrub(volume)
                except TrivetError as error:
                    log.info("%s is not scrubbed now: %s", volume, error)
                    wait_s = FAILED_S
            await self._runtime.clock.sleep(wait_s)

    async def _scrub(self, volume: Volume) -> None:
        nodes = tuple(r.node for r in in_sync(volume))
        rotten, lied, undecided = Counter[str](), Counter[str](), 0
        at, saved = volume.status.scrub.offset_bytes, volume.status.scrub.offset_bytes
        while at < volume.status.size_bytes:
            length = min(do.STEP_BLOCKS * do.BLOCK_BYTES, volume.status.size_bytes - at)
            blocks = await self._settled(volume, nodes, Extent(offset=at, length=length))
            for block in (block for block in blocks if block is not None):
                rot = do.judge(block)
                rotten.update(rot.rotten)
                lied.update(rot.rotten - block.unreadable)
                undecided += not rot.decided
            data = sum(any(b.hashes.values()) for b in blocks if b is not None)
            at += length
            if at - saved >= SAVED_EVERY_BYTES:
                saved = at
                await self._change(volume, partial(_far, offset=at))
            await self._runtime.clock.sleep(data * do.BLOCK_BYTES / self._rate)
        await self._end(volume, rotten, lied, undecided)

    async def _end(
        self, volume: Volume, rotten: Counter[str], lied: Counter[str], undecided: int
    ) -> None:
        """`lied`: those of the rotten blocks that disks gave back as if they were right."""
        now = self._runtime.clock.now()
        for node, count in rotten.items():
            log.warning("%s: %d blocks are rotten on %s", volume, count, node)
            await self._change(volume, partial(_distrusted, node=node, now=now))
            replica = replica_on(volume, node)
            if replica is not None and lied[node]:
                key = self._disks.kind.key(None, replica.disk)
                await self._disks.mutate(key, partial(_counted, blocks=lied[node]))
        await self._change(
            volume, lambda v: do.told(v, rotten, undecided, self._runtime.clock.now())
        )

    async def _settled(
        self, volume: Volume, nodes: tuple[str, ...], extent: Extent
    ) -> list[do.Block | None]:
        """The blocks of an extent; None for one in which writes are on their way."""
        blocks = await self._read(volume, nodes, extent)
        still = [True] * len(blocks)
        if all(block.alike for block in blocks):
            await self._keep(volume, nodes, extent, blocks)
            return list(blocks)
        for _ in range(do.LOOKS - 1):
            await self._runtime.clock.sleep(AGAIN_S)
            again = await self._read(volume, nodes, extent)
            same = do.unchanged(blocks, again)
            calm = [ok or block.alike for ok, block in zip(same, again, strict=True)]
            still = [a and b for a, b in zip(still, calm, strict=True)]
            blocks = again
        return [block if ok else None for block, ok in zip(blocks, still, strict=True)]

    async def _read(self, volume: Volume, nodes: tuple[str, ...], extent: Extent) -> list[do.Block]:
        request = DigestRequest(volume=volume.meta.id, extent=extent, block_bytes=do.BLOCK_BYTES)
        client = self._runtime.client
        answers: list[DigestResponse] = await asyncio.gather(
            *(client.call(ENDPOINT, request, node=node) for node in nodes)
        )
        count = min(len(answer.hashes) for answer in answers)
        return [
            do.Block(
                {node: a.hashes[n] for node, a in zip(nodes, answers, strict=True)},
                {node: a.stored[n] for node, a in zip(nodes, answers, strict=True)},
            )
            for n in range(count)
        ]

    async def _keep(
        self, volume: Volume, nodes: tuple[str, ...], extent: Extent, blocks: list[do.Block]
    ) -> None:
        """Have what was found alike kept as right, where it is not what is kept already."""
        for node in nodes:
            if all(block.stored[node] == block.hashes[node] for block in blocks):
                continue
            right = tuple(block.hashes[node] for block in blocks)
            request = DigestRequest(
                volume=volume.meta.id, extent=extent, block_bytes=do.BLOCK_BYTES, store=right
            )
            await self._runtime.client.call(ENDPOINT, request, node=node)

    async def _change(self, volume: Volume, change: do.Change) -> None:
        def checked(current: Volume) -> Volume:
            return change(current) if current.meta.id == volume.meta.id else current

        await self._volumes.mutate(self._volumes.key_of(volume), checked)


def _far(volume: Volume, offset: int) -> Volume:
    scrub = volume.status.scrub.model_copy(update={"offset_bytes": offset})
    return volume.with_status(scrub=scrub)


def _distrusted(volume: Volume, node: str, now: datetime) -> Volume:
    """The volume without a replica that has rotten blocks; never the last one that may be read."""
    if not any(r.node != node for r in trusted(volume)):
        return volume
    why = "a scrub found blocks of it that are wrong"
    make = partial(
        stated, state=ReplicaState.STALE, reason=why, now=now, missing=Missing.DIFFERENCES
    )
    return with_replica(volume, node, make)


def _counted(disk: Disk, blocks: int) -> Disk:
    return disk.with_status(rotten_blocks=disk.status.rotten_blocks + blocks)
