"""Which pool has a disk: a claim in the store, made before the pool is, so that of two pools that
name one disk at the same moment one is refused.

A pool that was refused after it had claimed, or a process that was killed then, leaves claims
behind. Nobody can tell those from a pool's that is about to be stored, except by waiting: they
are let go when the pool has been missing for `claim_age_s`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from trivet.contracts.errors import Refused
from trivet.contracts.keys import claim_key
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.codes import DISK_TAKEN
from trivet.contracts.storage.pool import Pool
from trivet.runtime.claims import Claims
from trivet.runtime.clock import Clock
from trivet.runtime.collection import Collection
from trivet.runtime.store import Store

log = logging.getLogger(__name__)

PREFIX = claim_key("disk") + "."


def disk_key(disk: str) -> str:
    """The key of a disk's claim."""
    return claim_key("disk", disk)


class DiskClaims:
    """Claims disks for pools, and lets go of them."""

    def __init__(self, store: Store, pools: Collection[Pool]) -> None:
        self._claims = Claims(store)
        self._pools = pools

    async def owner(self, disk: str) -> ResourceId | None:
        """The pool that has the disk."""
        return await self._claims.owner(disk_key(disk))

    async def claim(self, pool: Pool) -> None:
        """Claim all disks of a pool. Raises `Refused(DISK_TAKEN)`, with none claimed that was
        not before."""
        had = await self._claims.owners(PREFIX)
        new: list[str] = []
        for disk in (d for member in pool.spec.members for d in member.disks):
            key = disk_key(disk)
            if await self._claims.claim(key, pool.meta.id):
                new += [key] if key not in had else []
                continue
            for mine in new:
                await self._claims.release(mine, pool.meta.id)
            owner = await self._claims.owner(key)
            other = self._pools.by_id(owner) if owner else None
            whose = f"pool {other.meta.name}" if other else "another pool"
            raise Refused(DISK_TAKEN, f"disk {disk} belongs to {whose}", hint="take another disk")

    async def release(self, pool: ResourceId) -> None:
        """Let go of all disks of a pool that is gone."""
        for key, owner in (await self._claims.owners(PREFIX)).items():
            if owner == pool:
                await self._claims.release(key, owner)

    async def keep_only(self, pool: Pool) -> None:
        """Let go of disks that were taken away from a pool."""
        mine = {disk_key(d) for member in pool.spec.members for d in member.disks}
        for key, owner in (await self._claims.owners(PREFIX)).items():
            if owner == pool.meta.id and key not in mine:
                await self._claims.release(key, owner)

    async def owners(self) -> set[ResourceId]:
        """All pools that have disks."""
        return set((await self._claims.owners(PREFIX)).values())


class DiskClaimSweep:
    """Lets go of disks whose pool does not exist. What it saw missing is its own memory."""

    def __init__(
        self, claims: DiskClaims, pools: Collection[Pool], clock: Clock, age_s: float
    ) -> None:
        self._claims = claims
        self._pools = pools
        self._clock = clock
        self._age_s = age_s
        self._missing_since: dict[ResourceId, float] = {}

    async def run(self) -> None:
        """Look from time to time, until cancelled."""
        self._missing_since.clear()
        while True:
            await self.look()
            await self._clock.sleep(self._age_s / 4)

    async def look(self) -> None:
        """Let go of what has been nobody's for long enough."""
        owners = await self._claims.owners()
        missing = {id_ for id_ in owners if self._pools.by_id(id_) is None}
        for pool in self._due(missing):
            log.warning("the disks of %s, which does not exist, are free again", pool)
            await self._claims.release(pool)

    def _due(self, missing: Iterable[ResourceId]) -> set[ResourceId]:
        now = self._clock.monotonic()
        self._missing_since = {id_: self._missing_since.get(id_, now) for id_ in missing}
        return {id_ for id_, since in self._missing_since.items() if now - since >= self._age_s}
