"""Tells of what lies in this node's pools and belongs to nobody that the store knows.

Nothing is removed: it may be the last good copy of something, in a store that was put back to an
older state. What a pointer of this node's agent speaks of is its work, and no orphan; and what is
in a pool that is not open is not seen.
"""

from __future__ import annotations

import logging

from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Condition
from trivet.contracts.storage.engine import Snapshots, VolumeEngine
from trivet.contracts.storage.pool import Pool
from trivet.contracts.storage.snapshot import Snapshot
from trivet.contracts.storage.volume import Volume
from trivet.runtime.collection import Collection
from trivet.runtime.service import Service
from trivet.storage.node.pools import PoolAgent

log = logging.getLogger(__name__)


class OrphanWatch:
    """Looks from time to time."""

    def __init__(
        self,
        service: Service,
        volumes: Collection[Volume],
        snapshots: Collection[Snapshot],
        pools: Collection[Pool],
        engine: VolumeEngine,
        pool_agent: PoolAgent,
    ) -> None:
        self._runtime = service.runtime
        self._assigned = service.assigned()
        self._volumes = volumes
        self._snapshots = snapshots
        self._pools = pools
        self._engine = engine
        self._pool_agent = pool_agent

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.look()
            await self._runtime.clock.sleep(self._runtime.settings.storage.look_s)

    async def look(self) -> None:
        """Tell, of each pool that is open here, what in it is nobody's."""
        found: dict[str, list[str]] = {}
        for record in await self._engine.replicas():
            if self._volumes.by_id(record.volume) is None and not self._is_work(
                "volume", record.volume
            ):
                found.setdefault(record.pool, []).append(f"a replica of {record.volume}")
        if isinstance(self._engine, Snapshots):
            for kept in await self._engine.snapshots():
                if self._snapshots.by_id(kept.snapshot) is None and not self._is_work(
                    "snapshot", kept.snapshot
                ):
                    told = f"{kept.volume} in {kept.snapshot}"
                    found.setdefault(kept.pool, []).append(told)
        for pool in self._pools.list():
            if self._pool_agent.is_open(pool.meta.name):
                await self._tell(pool, found.get(pool.meta.id, []))

    def _is_work(self, kind: str, id_: ResourceId) -> bool:
        return self._assigned.has(kind, id_)

    async def _tell(self, pool: Pool, orphans: list[str]) -> None:
        type_ = f"Orphans-{self._runtime.node}"
        if not orphans and pool.status.condition(type_) is None:
            return
        told = Condition(
            type=type_,
            status="true" if orphans else "false",
            reason="Unknown" if orphans else "None",
            message="; ".join(sorted(orphans)[:10]),
        )
        if orphans:
            log.warning("pool %s: left alone, for nobody knows it: %s", pool.meta.name, orphans)
        now, key = self._runtime.clock.now(), self._pools.key_of(pool)
        await self._pools.mutate(
            key, lambda p: p.model_copy(update={"status": p.status.with_condition(told, now)})
        )
