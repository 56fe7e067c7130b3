"""The duty of a node's agent towards snapshots: take them, and remove them."""

from __future__ import annotations

from datetime import datetime

from trivet.contracts.errors import NOT_SUPPORTED, Refused, TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import SnapshotRecord, Snapshots, VolumeEngine
from trivet.contracts.storage.snapshot import Consistency, Snapshot
from trivet.contracts.storage.volume import Volume
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service
from trivet.storage.domain import snapshot_plan as do
from trivet.storage.domain.volume_plan import copied_from
from trivet.storage.node.pools import PoolAgent
from trivet.storage.node.quiet import quietly

KIND = "snapshot"
CLOSED_LOOK_S = 5.0
COPIED_LOOK_S = 1.0


class SnapshotAgent:
    """Keeps this node's snapshots."""

    def __init__(
        self,
        service: Service,
        snapshots: Collection[Snapshot],
        volumes: Collection[Volume],
        engine: VolumeEngine,
        pools: PoolAgent,
    ) -> None:
        self._runtime = service.runtime
        self._assignments = service.assignments
        self._assigned = service.assigned()
        self._snapshots = snapshots
        self._volumes = volumes
        self._engine = engine
        self._pools = pools
        self._reconciler = Reconciler(
            "snapshot agent",
            self._reconcile,
            clock=self._runtime.clock,
            keys=self._ids,
            resync_s=self._runtime.settings.storage.look_s,
        )
        self._assigned.on_change(lambda kind, key: self._wake_key(key))
        snapshots.on_change(self._wake_key)
        pools.on_opened(self._wake_all)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._reconciler.run()

    def _wake_all(self) -> None:
        for id_ in self._ids():
            self._reconciler.wake(id_)

    def _ids(self) -> list[str]:
        return [p.id for p in self._assigned.pointers(KIND)]

    def _wake_key(self, key: str) -> None:
        for id_ in self._assigned.ids(KIND, key):
            self._reconciler.wake(id_)

    def _able(self) -> Snapshots:
        if not isinstance(self._engine, Snapshots):
            raise Refused(NOT_SUPPORTED, f"{self._engine.name} takes no snapshots")
        return self._engine

    async def _reconcile(self, id_: str) -> float | None:
        pointer = self._assigned.pointer(KIND, id_)
        if pointer is None:
            return None
        if not self._pools.all_open():
            return CLOSED_LOOK_S  # what lies in a pool that is not open is not seen
        snapshot = await self._snapshots.fresh(pointer.key)
        if snapshot is None or snapshot.meta.id != id_:
            await self._able().drop(pointer.id)
            await self._release(pointer.id)
            return None
        going = snapshot.meta.deleting_at is not None
        copied = going and copied_from(snapshot, self._volumes.list(snapshot.meta.project))
        try:
            there = await self._able().snapshots(pointer.id)
            for action in do.plan_on_node(snapshot, self._runtime.node, there, copied):
                await self._apply(snapshot, action)
        except TrivetError as error:
            await self._tell(snapshot, error)
            if error.code is NOT_SUPPORTED:
                return None
            raise
        return COPIED_LOOK_S if copied else None

    async def _apply(self, snapshot: Snapshot, action: do.NodeAction) -> None:
        id_, now = snapshot.meta.id, self._runtime.clock.now()
        key = self._snapshots.key_of(snapshot)
        match action:
            case do.Take():
                records, how = await self._take(snapshot)
                await self._snapshots.mutate(key, lambda s: _as_taken(s, id_, records, how, now))
            case do.Drop():
                await self._able().drop(id_)
                await self._snapshots.mutate(
                    key, lambda s: s.with_status(parts=()) if s.meta.id == id_ else s
                )
            case do.NoteMissing():
                why = "it is not on its node any more"
                await self._snapshots.mutate(key, lambda s: do.failed(s, "Lost", why, now))
            case do.ReleaseSnapshot():
                await self._release(id_)

    async def _take(self, snapshot: Snapshot) -> tuple[tuple[SnapshotRecord, ...], Consistency]:
        """Cut its volumes. Where a cut that was killed left something, there is no telling any
        more how quiet it was."""
        id_, volumes = snapshot.meta.id, tuple(part.volume for part in snapshot.status.parts)
        able = self._able()
        if await able.snapshots(id_):
            return await able.take(id_, volumes), Consistency.CRASH
        held = [v for v in (self._volumes.by_id(volume) for volume in volumes) if v is not None]
        return await quietly(self._runtime.client, held, lambda: able.take(id_, volumes))

    async def _release(self, id_: str) -> None:
        await self._assignments.release(self._runtime.node, KIND, ResourceId(id_))

    async def _tell(self, snapshot: Snapshot, error: TrivetError) -> None:
        now, key = self._runtime.clock.now(), self._snapshots.key_of(snapshot)
        if error.code is NOT_SUPPORTED:
            reason = "NotSupported"
            await self._snapshots.mutate(key, lambda s: do.failed(s, reason, error.detail, now))
            return
        await self._snapshots.mutate(
            key, lambda s: do.tell(s, "false", "Failed", error.detail, now)
        )


def _as_taken(
    current: Snapshot,
    id_: str,
    records: tuple[SnapshotRecord, ...],
    how: Consistency,
    now: datetime,
) -> Snapshot:
    if current.meta.id != id_ or current.status.taken_at is not None:
        return current
    return do.taken(current, records, now).with_status(consistency=how)
