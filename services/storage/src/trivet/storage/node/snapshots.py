"""The duty of a node's agent towards snapshots: take them, copy them, and remove them."""

from __future__ import annotations

from datetime import datetime

from trivet.contracts.errors import NOT_SUPPORTED, Refused, TrivetError
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.engine import SnapshotRecord, Snapshots, VolumeEngine
from trivet.contracts.storage.pool import Pool
from trivet.contracts.storage.snapshot import Consistency, Snapshot
from trivet.contracts.storage.volume import Volume
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service
from trivet.storage.domain import snapshot_plan as do
from trivet.storage.domain.snapshot_copies import copied, missed, with_part, without_node
from trivet.storage.domain.volume_plan import copied_from
from trivet.storage.node.pools import PoolAgent
from trivet.storage.node.quiet import quietly
from trivet.storage.node.snapshot_copies import PartCopies

KIND = "snapshot"
CLOSED_LOOK_S = 5.0
COPIED_LOOK_S = 1.0
NEXT_PIECE_S = 0.01


class SnapshotAgent:
    """Keeps this node's snapshots."""

    def __init__(
        self,
        service: Service,
        snapshots: Collection[Snapshot],
        volumes: Collection[Volume],
        kept_in: Collection[Pool],
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
        self._copies = PartCopies(self._runtime, kept_in, engine)
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
        unseen = not self._pools.all_open()
        if not self._pools.any_open():
            return CLOSED_LOOK_S  # what lies in a pool that is not open is not seen
        snapshot = await self._snapshots.fresh(pointer.key)
        if snapshot is None or snapshot.meta.id != id_:
            if unseen:
                return CLOSED_LOOK_S
            self._copies.forget(pointer.id)
            await self._able().drop(pointer.id)
            await self._release(pointer.id)
            return None
        going = snapshot.meta.deleting_at is not None
        in_use = going and copied_from(snapshot, self._volumes.list(snapshot.meta.project))
        try:
            there = await self._able().snapshots(pointer.id)
            plan = do.plan_on_node(snapshot, self._runtime.node, there, in_use, unseen)
            for action in plan:
                await self._apply(snapshot, action)
        except TrivetError as error:
            await self._tell(snapshot, error)
            if error.code is NOT_SUPPORTED:
                return None
            raise
        if any(isinstance(action, do.CopyPart) for action in plan):
            return NEXT_PIECE_S
        return CLOSED_LOOK_S if unseen else COPIED_LOOK_S if in_use else None

    async def _apply(self, snapshot: Snapshot, action: do.NodeAction) -> None:
        id_, now, node = snapshot.meta.id, self._runtime.clock.now(), self._runtime.node
        key = self._snapshots.key_of(snapshot)
        match action:
            case do.Take():
                records, how = await self._take(snapshot)
                await self._snapshots.mutate(
                    key, lambda s: _as_taken(s, id_, node, records, how, now)
                )
            case do.Drop():
                self._copies.forget(id_)
                await self._able().drop(id_)
                await self._snapshots.mutate(
                    key, lambda s: without_node(s, node) if _goes(s, id_) else s
                )
            case do.DropPart(volume):
                await self._copies.able().drop_part(id_, volume)
            case do.CopyPart(volume):
                part = snapshot.status.part(volume)
                record = await self._copies.step(snapshot, part) if part is not None else None
                if record is not None:
                    await self._copied(snapshot, record)
            case do.NoteCopied(volume):
                for record in await self._able().snapshots(id_):
                    if record.volume == volume:
                        await self._copied(snapshot, record)
            case do.NoteMissing(volume):
                await self._snapshots.mutate(key, lambda s: _missed(s, id_, volume, node, now))
            case do.ReleaseSnapshot():
                await self._release(id_)

    async def _copied(self, snapshot: Snapshot, record: SnapshotRecord) -> None:
        id_, node = snapshot.meta.id, self._runtime.node

        def change(current: Snapshot) -> Snapshot:
            part = current.status.part(record.volume)
            if current.meta.id != id_ or part is None:
                return current
            return with_part(current, copied(part, record, node))

        await self._snapshots.mutate(self._snapshots.key_of(snapshot), change)

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
    node: str,
    records: tuple[SnapshotRecord, ...],
    how: Consistency,
    now: datetime,
) -> Snapshot:
    """Unchanged where it is to be cut by another node by now: what this one has goes."""
    if current.meta.id != id_ or current.status.taken_at is not None:
        return current
    if do.node_of(current) != node:
        return current
    return do.taken(current, records, now).with_status(consistency=how)


def _goes(current: Snapshot, id_: str) -> bool:
    return current.meta.id == id_ and current.meta.deleting_at is not None


def _missed(current: Snapshot, id_: str, volume: ResourceId, node: str, now: datetime) -> Snapshot:
    """What was here is not any more: it is copied again, if anybody has it."""
    part = current.status.part(volume)
    if current.meta.id != id_ or part is None or node not in part.nodes:
        return current
    left = missed(part, node)
    if left is None:
        return do.failed(current, "Lost", f"{part.name} is not on {node} any more", now)
    return with_part(current, left)
