"""The duty of a node's agent towards pools: open those that have a part here, tell their usage.

A pool is opened before its volumes are looked at; a pool that is being deleted is closed, and
destroyed once it is empty.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from trivet.contracts.errors import Retry, TrivetError
from trivet.contracts.resource import Condition, Phase
from trivet.contracts.storage.codes import NOT_READY
from trivet.contracts.storage.disk import Disk
from trivet.contracts.storage.engine import PoolOnNode, VolumeEngine
from trivet.contracts.storage.pool import Pool, PoolMember
from trivet.runtime.collection import Collection
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Service
from trivet.storage.domain import pools as domain

log = logging.getLogger(__name__)

USAGE_LOOK_S = 5.0
"""How often it is looked how full pools are: guests fill them faster than anything is asked."""


class PoolAgent:
    """Opens and closes this node's parts of pools."""

    def __init__(
        self,
        service: Service,
        pools: Collection[Pool],
        disks: Collection[Disk],
        engine: VolumeEngine,
    ) -> None:
        self._runtime = service.runtime
        self._pools = pools
        self._disks = disks
        self._engine = engine
        self._callbacks: list[Callable[[], None]] = []
        self._open: set[str] = set()
        self._reconciler = Reconciler(
            "pool agent",
            self._reconcile,
            clock=self._runtime.clock,
            keys=lambda: [pools.key_of(p) for p in pools.list() if self._member(p)],
            resync_s=min(self._runtime.settings.storage.look_s, USAGE_LOOK_S),
        )
        pools.on_change(self._changed)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._reconciler.run()

    def on_opened(self, callback: Callable[[], None]) -> None:
        """Call `callback` when a pool has become usable here."""
        self._callbacks.append(callback)

    def is_open(self, pool: str) -> bool:
        """Whether the pool of that name is open here: only then is a replica that is not
        found there known to be missing."""
        return pool in self._open

    def all_open(self) -> bool:
        """Whether all pools with a part here are open."""
        return all(self.is_open(p.meta.name) for p in self._pools.list() if self._member(p))

    async def starved(self, name: str) -> str:
        """Why writes to replicas in the pool of that name find no space here now ('': they do,
        or it is not known)."""
        pool = self._pools.get(name)
        member = self._member(pool) if pool else None
        if pool is None or member is None or not self.is_open(name):
            return ""
        usage = await self._engine.open_pool(self._on_node(pool, member))
        return domain.starved(name, usage.model_copy(update={"node": self._runtime.node}))

    def _changed(self, key: str) -> None:
        pool = self._pools.by_key(key)
        if pool is None or self._member(pool) is None:
            return
        here = any(u.node == self._runtime.node for u in pool.status.usage)
        # Usage is written by this very agent: only what is asked for wakes it.
        if not here or pool.meta.deleting_at is not None:
            self._reconciler.wake(key)

    def _member(self, pool: Pool) -> PoolMember | None:
        node = self._runtime.node
        return next((m for m in pool.spec.members if m.node == node), None)

    async def _reconcile(self, key: str) -> float | None:
        pool = await self._pools.fresh(key)
        member = self._member(pool) if pool is not None else None
        if pool is None or member is None:
            return None
        node = self._runtime.node
        if pool.meta.deleting_at is not None:
            if all(u.node != node for u in pool.status.usage):
                return None
            # Opened first, for a restarted service does not know yet what there is to remove.
            await self._engine.open_pool(self._on_node(pool, member))
            await self._engine.close_pool(pool.meta.id, destroy=True)
            self._open.discard(pool.meta.name)
            await self._pools.mutate(key, lambda p: domain.without_usage(p, node))
            return None
        try:
            usage = await self._engine.open_pool(self._on_node(pool, member))
        except TrivetError as error:
            self._open.discard(pool.meta.name)
            await self._tell(key, "false", "OpenFailed", error.detail)
            raise
        newly = pool.meta.name not in self._open
        self._open.add(pool.meta.name)
        usage = usage.model_copy(update={"node": node})
        engine = self._engine.name
        await self._pools.mutate(key, lambda p: domain.with_usage(p, usage, engine))
        await self._tell(key, "true", "Open", "")
        for callback in self._callbacks if newly else ():
            callback()
        return None

    def _on_node(self, pool: Pool, member: PoolMember) -> PoolOnNode:
        """The part of the pool here; a disk that is not found now makes all of it wait, for a
        pool without one of its disks would seem to have lost what lies there."""
        devices: list[str] = []
        for name in member.disks:
            disk = self._disks.get(name)
            if disk is None or disk.status.facts is None or disk.status.phase is not Phase.READY:
                detail = f"pool {pool.meta.name}: disk {name} is not found on {member.node}"
                raise Retry(NOT_READY, detail, retry_after_s=5.0)
            devices.append(disk.status.facts.device)
        return PoolOnNode(
            id=pool.meta.id, name=pool.meta.name, member=member, devices=tuple(devices)
        )

    async def _tell(self, key: str, status: str, reason: str, message: str) -> None:
        told = Condition.model_validate(
            {
                "type": f"Open-{self._runtime.node}",
                "status": status,
                "reason": reason,
                "message": message,
            }
        )
        now = self._runtime.clock.now()
        await self._pools.mutate(
            key, lambda p: p.model_copy(update={"status": p.status.with_condition(told, now)})
        )
