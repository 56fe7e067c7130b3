"""The duty of the leader towards replicas that hosts and disks fail: as `domain/healing` plans.

All volumes are judged together, for what begins first is decided over all of them. What a plan
says is recorded only if it still says so of the volume as it is in the store by then. Space is
promised before a replica is recorded, and given back after it was removed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from trivet.contracts.storage.pool import Pool
from trivet.contracts.storage.volume import Missing, Replica, ReplicaState, Volume
from trivet.runtime.collection import Collection
from trivet.runtime.service import Service
from trivet.storage.controllers.places import PlacesWatch
from trivet.storage.domain import healing as do
from trivet.storage.domain.attachment import attach, detach
from trivet.storage.domain.placement import Spot, Unplaceable, claim_at, place, wanted_beside
from trivet.storage.domain.replication import REPAIR, leaving
from trivet.storage.domain.volume_status import (
    replica_on,
    stated,
    told_redundancy,
    with_added,
    with_replica,
)
from trivet.storage.ledgers import Ledgers

log = logging.getLogger(__name__)

LOOK_S = 5.0
APART_S = 0.2
FAILED_S = 2.0


class Healer:
    """Keeps volumes as redundant as they are asked to be."""

    def __init__(
        self,
        service: Service,
        volumes: Collection[Volume],
        pools: Collection[Pool],
        ledgers: Ledgers,
        watch: PlacesWatch,
    ) -> None:
        self._clock = service.runtime.clock
        settings = service.runtime.settings.storage
        self._policy = do.Policy(settings.rebuild_after_s, settings.rebuilds_per_node)
        self._assignments = service.assignments
        self._volumes = volumes
        self._pools = pools
        self._ledgers = ledgers
        self._watch = watch
        self._woken = asyncio.Event()
        volumes.on_change(lambda key: self._woken.set())
        pools.on_change(lambda key: self._woken.set())
        watch.on_change(self._woken.set)

    async def run(self) -> None:
        """Look when woken, and from time to time, until cancelled."""
        while True:
            self._woken.clear()
            await self.look()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._woken.wait()
            except TimeoutError:
                continue
            await self._clock.sleep(APART_S)

    async def look(self) -> None:
        """Judge all volumes, and do what their plans say."""
        volumes, now = self._volumes.list(), self._clock.now()
        plans = [(v, do.plan(v, self._watch.places, self._policy, now)) for v in volumes]
        for volume in volumes:
            await self._tell(volume)
        loads, repairs = do.loads(volumes), do.repairs(volumes)
        for volume, actions in do.in_order((v, a) for v, a in plans if a):
            for action in actions:
                match action:
                    case do.Add(why):
                        node = await self._add(volume, why, loads)
                        loads.update([node] if node else [])
                    case do.Leave(node, why):
                        log.info("%s: the replica on %s goes: %s", volume, node, why)
                        await self._state(volume, action, node, ReplicaState.LEAVING, why)
                    case do.Distrust(node, state, why):
                        log.warning("%s: not counted on: %s (%s)", volume, node, why)
                        await self._state(volume, action, node, state, why)
                    case do.Drop(node):
                        await self._drop(volume, action, node)
                    case do.Bar(node, why):
                        await self._change(volume, action, partial(_barred, node=node, why=why))
                    case do.Hold(node):
                        if repairs[node] < self._policy.rebuilds_per_node:
                            repairs[node] += 1
                            await self._change(volume, action, partial(_held, node=node))
                    case do.LetGo():
                        await self._change(volume, action, partial(detach, holder=REPAIR))

    def _still(self, volume: Volume, action: do.Heal) -> bool:
        """Whether the volume, as it is now, is still planned so."""
        return action in do.plan(volume, self._watch.places, self._policy, self._clock.now())

    async def _tell(self, volume: Volume) -> None:
        if volume.meta.deleting_at is not None or not volume.status.replicas:
            return
        now, places = self._clock.now(), self._watch.places

        def told(current: Volume) -> Volume:
            if current.meta.id != volume.meta.id:
                return current
            return told_redundancy(current, do.condition(current, places, self._policy, now), now)

        if told(volume) is not volume:
            await self._volumes.mutate(self._volumes.key_of(volume), told)

    async def _state(
        self, volume: Volume, action: do.Heal, node: str, state: ReplicaState, why: str
    ) -> None:
        now = self._clock.now()
        stale = state is ReplicaState.STALE
        missing = Missing.DIFFERENCES if stale else Missing.NOTHING

        make = partial(stated, state=state, reason=why, now=now, missing=missing)

        def change(current: Volume) -> Volume:
            # Others may be in sync and yet have to be compared with this one first.
            if state is ReplicaState.LEAVING:
                return leaving(current, node, why, now)
            return with_replica(current, node, make)

        await self._change(volume, action, change)

    async def _change(
        self, volume: Volume, action: do.Heal, make: Callable[[Volume], Volume]
    ) -> None:
        """Record what `make` makes of the volume, if it is still planned so."""

        def change(current: Volume) -> Volume:
            same = current.meta.id == volume.meta.id
            return make(current) if same and self._still(current, action) else current

        await self._volumes.mutate(self._volumes.key_of(volume), change)

    async def _drop(self, volume: Volume, action: do.Heal, node: str) -> None:
        pool, id_ = self._pools.get(volume.status.pool or ""), volume.meta.id
        if pool is None:
            return
        current = await self._volumes.fresh(self._volumes.key_of(volume))
        if current is None or current.meta.id != id_ or not self._still(current, action):
            return
        await self._ledgers.release(pool.meta.id, node, id_)

        def forget(current: Volume) -> Volume:
            if current.meta.id != id_ or not self._still(current, action):
                return current
            return with_replica(current, node, lambda r: None)

        await self._volumes.mutate(self._volumes.key_of(volume), forget)

    async def _add(self, volume: Volume, why: str, loads: do.Loads) -> str | None:
        """Find a place for one more replica, and record it; the node, if there is one."""
        pool = self._pools.get(volume.status.pool or "")
        if pool is None:
            return None
        busy = {
            n: "is busy with others"
            for n, c in loads.items()
            if c >= self._policy.rebuilds_per_node
        }
        wanted = wanted_beside(volume, self._volumes.key_of(volume), busy)
        found = place(wanted, self._ledgers.members(pool), self._watch.places)
        if isinstance(found, Unplaceable):
            if not busy:
                await self._unplaceable(volume, f"{why}; {found.reason}")
            return None
        (spot,) = found.spots
        claim = claim_at(wanted.claim, spot)
        refused = await self._ledgers.claim(pool, spot.node, volume.meta.id, claim)
        if refused is not None:
            return None
        log.info("%s: a replica more on %s: %s", volume, found.reason, why)
        return spot.node if await self._record(volume, pool, spot, why) else None

    async def _record(self, volume: Volume, pool: Pool, spot: Spot, why: str) -> bool:
        now, disk = self._clock.now(), spot.disk or pool.meta.name
        new = Replica(
            node=spot.node,
            disk=disk,
            state=ReplicaState.CREATING,
            reason=why,
            since=now,
            missing=Missing.ALL,
        )

        def add(current: Volume) -> Volume:
            if current.meta.id != volume.meta.id:
                return current
            plan = do.plan(current, self._watch.places, self._policy, now)
            return with_added(current, new) if any(isinstance(a, do.Add) for a in plan) else current

        written = await self._volumes.mutate(self._volumes.key_of(volume), add)
        if written is not None and replica_on(written, spot.node) is not None:
            return True
        await self._ledgers.release(pool.meta.id, spot.node, volume.meta.id)
        return False

    async def _unplaceable(self, volume: Volume, why: str) -> None:
        now = self._clock.now()

        def told(current: Volume) -> Volume:
            if current.meta.id != volume.meta.id:
                return current
            about = do.condition(current, self._watch.places, self._policy, now)
            message = f"{about.message}; no place for another: {why}"
            return told_redundancy(current, about.model_copy(update={"message": message}), now)

        await self._volumes.mutate(self._volumes.key_of(volume), told)


def _barred(volume: Volume, node: str, why: str) -> Volume:
    return with_replica(volume, node, lambda r: r.model_copy(update={"barred": why}))


def _held(volume: Volume, node: str) -> Volume:
    return attach(volume, REPAIR, node, None)
