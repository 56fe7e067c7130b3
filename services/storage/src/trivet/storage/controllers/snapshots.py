"""The duty of the leader towards snapshots: their place, their space, and their end."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trivet.contracts.storage.pool import Pool
from trivet.contracts.storage.snapshot import Snapshot
from trivet.contracts.storage.volume import Volume
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service
from trivet.storage.controllers.places import PlacesWatch
from trivet.storage.domain import snapshot_plan as do
from trivet.storage.domain.snapshot_copies import by_place, promises, spread, with_part
from trivet.storage.domain.space import SpaceClaim
from trivet.storage.domain.volume_plan import copied_from
from trivet.storage.ledgers import Ledgers

AGAIN_S = 2.0


class SnapshotController:
    """Places snapshots, and ends them."""

    def __init__(
        self,
        service: Service,
        snapshots: Collection[Snapshot],
        volumes: Collection[Volume],
        pools: Collection[Pool],
        ledgers: Ledgers,
        watch: PlacesWatch,
    ) -> None:
        self._watch = watch
        self._clock = service.runtime.clock
        self._assignments = service.assignments
        self._snapshots = snapshots
        self._volumes = volumes
        self._pools = pools
        self._ledgers = ledgers
        self._reconciler = Reconciler(
            "snapshot controller", self._reconcile, clock=self._clock, keys=snapshots.keys
        )
        snapshots.on_change(self._reconciler.wake)
        volumes.on_change(self._volume_changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._reconciler.run()

    def _volume_changed(self, key: str) -> None:
        """Its snapshots go where its replicas go."""
        volume = self._volumes.by_key(key)
        if volume is None:
            return
        for snapshot in self._snapshots.list(volume.meta.project):
            if snapshot.status.part(volume.meta.id) is not None:
                self._reconciler.wake(self._snapshots.key_of(snapshot))

    def _silent(self) -> frozenset[str]:
        nodes = self._watch.places.nodes
        return frozenset(name for name, view in nodes.items() if view.silent_s or view.gone)

    def _volumes_of(self, snapshot: Snapshot) -> dict[str, Volume]:
        ids = [part.volume for part in snapshot.status.parts]
        return {id_: v for id_ in ids if (v := self._volumes.by_id(id_)) is not None}

    async def _reconcile(self, key: str) -> float | None:
        snapshot = await self._snapshots.fresh(key)
        if snapshot is None:
            return None
        going = snapshot.meta.deleting_at is not None
        copied = going and copied_from(snapshot, self._volumes.list(snapshot.meta.project))
        again: float | None = None
        silent, volumes = self._silent(), self._volumes_of(snapshot)
        plan = do.plan_in_cluster(snapshot, self._clock.now(), copied, volumes, silent)
        for action in plan:
            match action:
                case do.PlaceSnapshot():
                    again = await self._place(snapshot)
                case do.AssignSnapshot(node, after_s):
                    meta = snapshot.meta
                    await self._assignments.assign(node, "snapshot", meta.id, key, meta.generation)
                    again = after_s
                case do.PlaceElsewhere():
                    await self._change(snapshot, _unplaced)
                case do.Spread():
                    again = await self._spread(snapshot)
                    snapshot = await self._snapshots.fresh(key) or snapshot
                case do.SettleClaim():
                    await self._settle(snapshot)
                case do.ForgetSnapshot():
                    await self._forget(snapshot)
        return again

    async def _place(self, snapshot: Snapshot) -> float | None:
        project = snapshot.meta.project
        found = [self._volumes.get(name, project) for name in snapshot.spec.volumes]
        volumes = [v for v in found if v is not None and v.meta.deleting_at is None]
        if len(volumes) < len(found):
            await self._failed(snapshot, "VolumeGone", "a volume of it is gone")
            return None
        node = do.choose_node(volumes, self._silent())
        if node is None:
            why = "no node has a replica in sync of all its volumes: they can't be cut together"
            await self._failed(snapshot, "NoCommonNode", why)
            return None
        parts, now = do.parts_on(node, volumes), self._clock.now()
        key = self._snapshots.key_of(snapshot)
        no_space = await self._claim(snapshot, by_place(parts))
        if no_space is not None:
            await self._snapshots.mutate(
                key, lambda s: do.tell(s, "false", "NoSpace", no_space, now)
            )
            return AGAIN_S

        def record(current: Snapshot) -> Snapshot:
            fresh = current.meta.id == snapshot.meta.id and not current.status.parts
            if not fresh or current.meta.deleting_at is not None:
                return current
            return do.placed(current, parts)

        await self._snapshots.mutate(key, record)
        return None

    async def _spread(self, snapshot: Snapshot) -> float | None:
        """Promise space where it is to be kept, too, and record that it is."""
        volumes = self._volumes_of(snapshot)
        promised, refused = set[str](), list[str]()
        for node, here in promises(snapshot.status.parts, volumes).items():
            why = await self._claim(snapshot, here)
            if why is None:
                promised.add(node)
            else:
                refused.append(f"{node}: {why}")

        def spread_out(current: Snapshot) -> Snapshot:
            for part in current.status.parts:
                current = with_part(current, spread(part, volumes.get(part.volume), promised))
            return do.told_copies(current, refused, self._clock.now())

        await self._change(snapshot, spread_out)
        return AGAIN_S if refused else None

    async def _change(self, snapshot: Snapshot, change: Callable[[Snapshot], Snapshot]) -> None:
        """Change it, unless the name is another one's by now or it goes."""

        def checked(current: Snapshot) -> Snapshot:
            same = current.meta.id == snapshot.meta.id
            return change(current) if same and current.meta.deleting_at is None else current

        await self._snapshots.mutate(self._snapshots.key_of(snapshot), checked)

    async def _claim(self, snapshot: Snapshot, wanted: Mapping[tuple[str, str], int]) -> str | None:
        """Promise space in each pool on each node; why that can't be, or None: it is promised."""
        for (name, node), size_bytes in wanted.items():
            pool = self._pools.get(name)
            if pool is None:
                return f"pool {name} is not there"
            claim = self._claimed(snapshot, size_bytes)
            why = await self._ledgers.claim(pool, node, snapshot.meta.id, claim)
            if why is not None:
                return f"pool {name}: {why}"
        return None

    async def _failed(self, snapshot: Snapshot, reason: str, message: str) -> None:
        now, key = self._clock.now(), self._snapshots.key_of(snapshot)
        await self._snapshots.mutate(key, lambda s: do.failed(s, reason, message, now))

    def _claimed(self, snapshot: Snapshot, size_bytes: int) -> SpaceClaim:
        return SpaceClaim(key=self._snapshots.key_of(snapshot), size_bytes=size_bytes)

    async def _settle(self, snapshot: Snapshot) -> None:
        """Make promises what is held, and take back those of nodes that keep nothing of it."""
        wanted, id_ = by_place(snapshot.status.parts), snapshot.meta.id
        for pool in self._pools.list():
            for member in pool.spec.members:
                size_bytes = wanted.get((pool.meta.name, member.node))
                if size_bytes is None:
                    await self._ledgers.release(pool.meta.id, member.node, id_)
                    continue
                claim = self._claimed(snapshot, size_bytes)
                await self._ledgers.settle(pool.meta.id, member.node, id_, claim)
        key, size = self._snapshots.key_of(snapshot), do.wanted_bytes(snapshot)
        await self._snapshots.mutate(key, lambda s: s.with_status(claimed_bytes=size))

    async def _forget(self, snapshot: Snapshot) -> None:
        for pool in self._pools.list():
            for member in pool.spec.members:
                await self._ledgers.release(pool.meta.id, member.node, snapshot.meta.id)
        await self._snapshots.remove(snapshot)


def _unplaced(snapshot: Snapshot) -> Snapshot:
    """Without its place; one that was cut meanwhile keeps it."""
    if snapshot.status.taken_at is not None:
        return snapshot
    return snapshot.with_status(parts=(), claimed_bytes=0)
