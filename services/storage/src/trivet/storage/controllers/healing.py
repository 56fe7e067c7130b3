"""The duty of the leader towards replicas that hosts and disks fail: as `domain/healing` plans.

A volume is judged when it changes, and for as long as something is planned for it; a survey of
all finds the others whose time has come, or whose host or disk has changed. All that have a plan
are looked at together, for what begins first is decided over all of them. What a plan says is
recorded only if it still says so of the volume as it is in the store by then. Space is promised
before a replica is recorded, and given back after it was removed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from functools import partial

from trivet.contracts.errors import Retry
from trivet.contracts.storage.pool import Pool
from trivet.contracts.storage.volume import Missing, Replica, ReplicaState, Volume
from trivet.runtime.collection import Collection
from trivet.runtime.pace import paced
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

SURVEY_S = 5.0
APART_S = 0.2


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
        self._due: set[str] = set()
        self._woken = asyncio.Event()
        self._turned = asyncio.Event()
        volumes.on_change(self._wake)
        pools.on_change(lambda key: self._woken.set())
        watch.on_change(self._turned.set)

    def _wake(self, *keys: str) -> None:
        self._due.update(keys)
        self._woken.set()

    async def run(self) -> None:
        """Survey all and look at what is due, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._survey())
            group.create_task(self._heal())

    async def _survey(self) -> None:
        """Find whom time or its place has given a plan, or another word to say of itself: in a
        hurry at first and when a host or disk has turned, else at leisure."""
        hurry = True
        while True:
            self._turned.clear()
            self._wake(*[key async for key in self._surveyed(hurry) if self._is_to_do(key)])
            with suppress(TimeoutError):
                async with asyncio.timeout(0 if self._turned.is_set() else SURVEY_S):
                    await self._turned.wait()
            hurry = self._turned.is_set()

    async def _surveyed(self, hurry: bool) -> AsyncGenerator[str, None]:
        """All keys; a survey at leisure ends where a turn asks for one in a hurry."""
        async for key in paced(self._volumes.keys(), self._clock, hurry=hurry):
            if self._turned.is_set() and not hurry:
                return
            yield key

    def _is_to_do(self, key: str) -> bool:
        volume = self._volumes.by_key(key)
        return volume is not None and bool(self._plan(volume) or self._untold(volume))

    def _plan(self, volume: Volume) -> tuple[do.Heal, ...]:
        return do.plan(volume, self._watch.places, self._policy, self._clock.now())

    async def _heal(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            keys, self._due = self._due, set()
            try:
                await self.look(keys)
            except Retry as error:
                log.info("healing waits: %s", error)
                self._due |= keys
            await self._clock.sleep(APART_S)

    async def look(self, keys: Iterable[str]) -> None:
        """Judge those volumes, and do what their plans say; what is planned stays due."""
        volumes = [v for v in map(self._volumes.by_key, sorted(keys)) if v is not None]
        for volume in volumes:
            await self._tell(volume)
        plans = [(v, actions) for v in volumes if (actions := self._plan(v))]
        if not plans:
            return
        self._due.update(self._volumes.key_of(v) for v, _ in plans)
        everything = self._volumes.list()
        loads, repairs = do.loads(everything), do.repairs(everything)
        for volume, actions in do.in_order(plans):
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
        return action in self._plan(volume)

    def _told(self, current: Volume) -> Volume:
        """The volume with what is to be said of its redundancy now; itself where that is said."""
        if current.meta.deleting_at is not None or not current.status.replicas:
            return current
        now = self._clock.now()
        about = do.condition(current, self._watch.places, self._policy, now)
        return told_redundancy(current, about, now)

    def _untold(self, volume: Volume) -> bool:
        return self._told(volume) is not volume

    async def _tell(self, volume: Volume) -> None:
        def told(current: Volume) -> Volume:
            return self._told(current) if current.meta.id == volume.meta.id else current

        if self._untold(volume):
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
