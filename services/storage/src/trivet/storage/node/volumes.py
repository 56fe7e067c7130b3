"""The duty of a node's agent towards volumes: replicas, servers and graphs as the plan says.

It looks at what it was assigned, plans by `domain/volume_plan`, and does what the plan says, in
order; what fails is told in the volume's conditions and tried again. A pointer to a volume that
the store positively lacks means that what is left of it here goes.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from trivet.contracts.errors import TrivetError
from trivet.contracts.keys import Assignment
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Condition
from trivet.contracts.storage.engine import VolumeEngine
from trivet.contracts.storage.volume import ReplicaState, Volume
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service
from trivet.storage.domain.volume_plan import (
    KeepGraph,
    LookAgain,
    Release,
    Seen,
    copied_from,
    has_slots,
    plan_on_node,
)
from trivet.storage.domain.volume_status import replica_on
from trivet.storage.node.graphs import Graphs
from trivet.storage.node.pools import PoolAgent
from trivet.storage.node.volume_effects import VolumeEffects

log = logging.getLogger(__name__)

WORKERS = 8
COPIED_FROM_LOOK_S = 1.0
CLOSED_LOOK_S = 5.0


class VolumeAgent:
    """Keeps this node's parts of volumes."""

    def __init__(
        self,
        service: Service,
        volumes: Collection[Volume],
        engine: VolumeEngine,
        effects: VolumeEffects,
        pools: PoolAgent,
        graphs: Graphs | None,
    ) -> None:
        self._graphs = graphs
        self._runtime = service.runtime
        self._assignments = service.assignments
        self._assigned = service.assigned()
        self._volumes = volumes
        self._engine = engine
        self._effects = effects
        self._pools = pools
        self._reconciler = Reconciler(
            "volume agent",
            self._reconcile,
            clock=self._runtime.clock,
            keys=self._ids,
            bound=WORKERS,
            resync_s=self._runtime.settings.storage.look_s,
            survey=self._survey,
            calm=self._calm,
        )
        self._surveyed: dict[str, Seen] | None = None
        self._assigned.on_change(lambda kind, key: self._wake_key(key))
        volumes.on_change(self._wake_key)
        pools.on_opened(self.wake_all)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._reconciler.run()

    def wake(self, id_: ResourceId) -> None:
        """Look at a volume soon."""
        self._reconciler.wake(id_)

    def held(self) -> list[Volume]:
        """The volumes that are held on this node with a graph for several replicas."""
        known = (self._volumes.by_key(p.key) for p in self._assigned.pointers("volume"))
        return [
            v
            for v in known
            if v is not None
            and (held := v.status.attachment) is not None
            and held.node == self._runtime.node
            and has_slots(v, None)
        ]

    def wake_all(self) -> None:
        """Look at all volumes of this node soon."""
        for id_ in self._ids():
            self._reconciler.wake(id_)

    def _ids(self) -> list[str]:
        return [p.id for p in self._assigned.pointers("volume")]

    def _wake_key(self, key: str) -> None:
        for id_ in self._assigned.ids("volume", key):
            self._reconciler.wake(id_)

    async def _survey(self) -> None:
        """See all replicas and graphs of this node at once, for the look at all that follows."""
        self._surveyed = None
        try:
            records = {r.volume: r for r in await self._engine.replicas()}
            graphs = {g.volume: g for g in await self._engine.attached()}
        except TrivetError as error:
            log.info("the engine can't tell what is here: %s", error)
            return
        self._surveyed = {
            id_: Seen(records.get(id_), graphs.get(id_), slots=self._graphs is not None)
            for id_ in records.keys() | graphs.keys()
        }

    def _calm(self, id_: str) -> bool:
        """Whether nothing is to be done for a volume, by what was seen of all."""
        pointer = self._assigned.pointer("volume", id_)
        volume = self._steady(pointer) if pointer else None
        if self._surveyed is None or volume is None:
            return False
        return self._nothing_to_do(
            volume, self._surveyed.get(id_, Seen(slots=self._graphs is not None))
        )

    def _nothing_to_do(self, volume: Volume, seen: Seen) -> bool:
        actions = plan_on_node(volume, self._runtime.node, seen, self._runtime.clock.now())
        if actions == (KeepGraph(),) and self._graphs is not None:
            return self._graphs.rests(volume, seen.attached)
        return not actions

    async def _rests(self, pointer: Assignment) -> bool:
        """Whether nothing is to be done, by the copy, which will do to see that."""
        volume = self._steady(pointer)
        if volume is None:
            return False
        return self._nothing_to_do(volume, await self._look(volume))

    def _steady(self, pointer: Assignment) -> Volume | None:
        """The volume as the copy has it, if it is there to stay and can be seen."""
        volume = self._volumes.by_key(pointer.key)
        if volume is None or volume.meta.id != pointer.id or volume.meta.deleting_at is not None:
            return None
        told = volume.status.condition("Served")
        failed = told is not None and told.status == "false"
        replica = replica_on(volume, self._runtime.node)
        disk = replica.disk if replica is not None else ""
        return (
            volume if self._pools.is_open(volume.status.pool or "", disk) and not failed else None
        )

    async def _reconcile(self, id_: str) -> float | None:
        pointer = self._assigned.pointer("volume", id_)
        if pointer is None or await self._rests(pointer):
            return None
        # Before anything is done, the store says what there is to do.
        volume = await self._volumes.fresh(pointer.key)
        if volume is None or volume.meta.id != id_:
            if not self._pools.all_open():
                return CLOSED_LOOK_S
            await self._clear(pointer)
            return None
        replica = replica_on(volume, self._runtime.node)
        pool = volume.status.pool or ""
        seen = await self._look(volume)
        if replica is not None and not self._pools.is_open(pool):
            # What lies in a pool that is not open is not seen: unknown never reads as lost. The
            # graph of a volume that is held here has other replicas, which go on.
            if self._graphs is not None and has_slots(volume, seen.attached):
                await self._graphs.keep(volume)
            return CLOSED_LOOK_S
        if replica is not None and not self._pools.is_open(pool, replica.disk):
            seen = replace(seen, unseen=True)
        again: float | None = CLOSED_LOOK_S if seen.unseen else None
        try:
            for action in plan_on_node(volume, self._runtime.node, seen, self._runtime.clock.now()):
                if isinstance(action, Release):
                    await self._assignments.release(self._runtime.node, "volume", pointer.id)
                    return None
                if isinstance(action, LookAgain):
                    again = action.after_s
                    continue
                soon_s = await self._effects.apply(volume, action)
                again = soon_s if soon_s is not None else again
        except TrivetError as error:
            await self._tell(pointer.key, error)
            raise
        if any(c.type == "Served" and c.status == "false" for c in volume.status.conditions):
            await self._tell(pointer.key, None)
        waits = volume.meta.deleting_at is not None and seen.copied_from
        return COPIED_FROM_LOOK_S if waits else again

    async def _look(self, volume: Volume) -> Seen:
        id_ = volume.meta.id
        records = await self._engine.replicas(id_)
        graphs = await self._engine.attached(id_)
        replica = replica_on(volume, self._runtime.node)
        leaves = replica is None or replica.state is ReplicaState.LEAVING
        going = leaves or volume.meta.deleting_at is not None
        return Seen(
            record=records[0] if records else None,
            attached=graphs[0] if graphs else None,
            slots=self._graphs is not None,
            # Only a removal asks, so only then are all volumes gone through.
            copied_from=going and copied_from(volume, self._volumes.list(volume.meta.project)),
        )

    async def _clear(self, pointer: Assignment) -> None:
        """Remove what is left here of a volume that the store does not have any more."""
        log.info("volume %s is gone: what is left of it here goes", pointer.id)
        await self._engine.detach(pointer.id)
        record = await self._record(pointer.id)
        if record is not None:
            await self._engine.end_serving(pointer.id, record + 1)
            await self._engine.remove(pointer.id)
        await self._assignments.release(self._runtime.node, "volume", pointer.id)

    async def _record(self, id_: ResourceId) -> int | None:
        records = await self._engine.replicas(id_)
        return max(records[0].epoch, records[0].serving or 0) if records else None

    async def _tell(self, key: str, error: TrivetError | None) -> None:
        told = Condition(
            type="Served",
            status="true" if error is None else "false",
            reason="Served" if error is None else "Failed",
            message=error.detail if error else "",
        )
        now = self._runtime.clock.now()
        await self._volumes.mutate(
            key, lambda v: v.model_copy(update={"status": v.status.with_condition(told, now)})
        )
