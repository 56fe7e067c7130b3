"""The duty of the leader towards spares: give them to pools in the place of disks that fail.

In this order, so that a cut in between is gone on from: the bad disk says which spare it gets,
the spare takes the role `data`, the pool claims it and lists it. Its node then opens the pool
with it, and new replicas find room there.
"""

from __future__ import annotations

import logging
from functools import partial

from trivet.contracts.storage.disk import Disk, DiskRole
from trivet.contracts.storage.pool import Pool
from trivet.runtime.collection import Collection
from trivet.runtime.service import Service
from trivet.storage.controllers.places import PlacesWatch
from trivet.storage.disk_claims import DiskClaims
from trivet.storage.domain.spares import UseSpare, spares_used

log = logging.getLogger(__name__)

LOOK_S = 2.0


class Spares:
    """Puts spares in the place of disks that fail."""

    def __init__(
        self,
        service: Service,
        pools: Collection[Pool],
        disks: Collection[Disk],
        claims: DiskClaims,
        watch: PlacesWatch,
    ) -> None:
        self._clock = service.runtime.clock
        self._missing_after_s = service.runtime.settings.storage.rebuild_after_s
        self._pools = pools
        self._disks = disks
        self._claims = claims
        self._watch = watch

    async def run(self) -> None:
        """Look from time to time, until cancelled."""
        while True:
            await self.look()
            await self._clock.sleep(LOOK_S)

    async def look(self) -> None:
        """Use what spares there are for what is bad."""
        pools, disks, places = self._pools.list(), self._disks.list(), self._watch.places
        for use in spares_used(pools, disks, places, self._missing_after_s):
            log.warning("spare %s takes the place of disk %s", use.spare, use.disk)
            await self._use(use)

    async def _use(self, use: UseSpare) -> None:
        key = self._disks.kind.key
        await self._disks.mutate(key(None, use.disk), partial(_given, spare=use.spare))
        await self._disks.mutate(key(None, use.spare), _in_use)
        pool_key = self._pools.kind.key(None, use.pool)
        pool = await self._pools.fresh(pool_key)
        if pool is None:
            return
        await self._claims.claim(_larger(pool, use))
        await self._pools.mutate(pool_key, partial(_larger, use=use))


def _given(disk: Disk, spare: str) -> Disk:
    return disk if disk.status.replaced_by else disk.with_status(replaced_by=spare)


def _in_use(disk: Disk) -> Disk:
    changed = disk.with_spec(disk.spec.model_copy(update={"role": DiskRole.DATA}))
    return changed.with_status(observed_generation=changed.meta.generation)


def _larger(pool: Pool, use: UseSpare) -> Pool:
    """The pool with the spare among the disks of its member."""
    members = tuple(
        m.model_copy(update={"disks": (*m.disks, use.spare)})
        if m.node == use.node and use.spare not in m.disks
        else m
        for m in pool.spec.members
    )
    return pool.with_spec(pool.spec.model_copy(update={"members": members}))
