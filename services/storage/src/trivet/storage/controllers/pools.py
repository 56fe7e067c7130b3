"""The duty of the leader towards pools: their phase, what is promised of them, and their end.

Promises to volumes that the store positively lacks are taken back at each look: a process that
was killed between a promise and the volume's record, or its removal, left them.
"""

from __future__ import annotations

from trivet.contracts.model import ResourceId
from trivet.contracts.storage.pool import Pool
from trivet.contracts.storage.snapshot import Snapshot
from trivet.contracts.storage.volume import Volume
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service
from trivet.storage.disk_claims import DiskClaims
from trivet.storage.domain import pools as domain
from trivet.storage.domain.space import Ledger
from trivet.storage.ledgers import Ledgers

RESYNC_S = 15.0


class PoolController:
    """Keeps pools' status, and ends those that are deleted."""

    def __init__(
        self,
        service: Service,
        pools: Collection[Pool],
        volumes: Collection[Volume],
        snapshots: Collection[Snapshot],
        ledgers: Ledgers,
        disk_claims: DiskClaims,
    ) -> None:
        self._clock = service.runtime.clock
        self._pools = pools
        self._volumes = volumes
        self._snapshots = snapshots
        self._ledgers = ledgers
        self._disk_claims = disk_claims
        self._reconciler = Reconciler(
            "pool controller",
            self._reconcile,
            clock=service.runtime.clock,
            keys=pools.keys,
            resync_s=RESYNC_S,
        )
        pools.on_change(self._reconciler.wake)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._reconciler.run()

    async def _reconcile(self, key: str) -> float | None:
        pool = await self._pools.fresh(key)
        if pool is None:
            return None
        if pool.meta.deleting_at is not None and not pool.status.usage:
            await self._pools.remove(pool)
            await self._disk_claims.release(pool.meta.id)
            return None
        if any(member.disks for member in pool.spec.members):
            await self._disk_claims.keep_only(pool)
        claimed = 0
        for member in pool.spec.members:
            ledger = self._ledgers.read(pool.meta.id, member.node)
            for volume in await self._left_over(ledger):
                await self._ledgers.release(pool.meta.id, member.node, volume)
                ledger = ledger.without(volume)
            claimed += ledger.claimed_bytes
        now = self._clock.now()
        await self._pools.mutate(key, lambda p: domain.with_phase(p, claimed, now))
        return None

    async def _left_over(self, ledger: Ledger) -> list[ResourceId]:
        """Volumes and snapshots that have a promise and that the store, asked now, lacks."""
        found: list[ResourceId] = []
        for id_, claim in ledger.claims.items():
            known: Collection[Snapshot] | Collection[Volume] = self._volumes
            if claim.key.startswith(self._snapshots.prefix):
                known = self._snapshots
            if known.by_id(id_) is None:
                there = await known.fresh(claim.key)
                if there is None or there.meta.id != id_:
                    found.append(id_)
        return found
