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
from trivet.contracts.storage.disk import Disk, DiskHealth
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
        self._open: dict[str, frozenset[str]] = {}
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

    def is_open(self, pool: str, disk: str = "") -> bool:
        """Whether the pool of that name is open here, with that disk if it is one of its: only
        then is a replica that is not found there known to be missing."""
        return pool in self._open and (disk in ("", pool) or disk in self._open[pool])

    def all_open(self) -> bool:
        """Whether all pools with a part here are open, with all their disks but those that have
        failed for good."""
        mine = ((p.meta.name, self._member(p)) for p in self._pools.list())
        return all(
            self.is_open(name)
            and all(d in self._open[name] or self._has_failed(d) for d in member.disks)
            for name, member in mine
            if member is not None
        )

    def any_open(self) -> bool:
        """Whether all pools with a part here are open, be it without some of their disks."""
        mine = (p.meta.name for p in self._pools.list() if self._member(p) is not None)
        return all(self.is_open(name) for name in mine)

    def _has_failed(self, name: str) -> bool:
        disk = self._disks.get(name)
        return disk is not None and disk.status.health is DiskHealth.FAILED

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
        if pool is None:
            return
        if self._member(pool) is None:
            if self._was_here(pool):
                self._reconciler.wake(key)
            return
        here = any(u.node == self._runtime.node for u in pool.status.usage)
        # Usage is written by this very agent: only what is asked for wakes it.
        if not here or pool.meta.deleting_at is not None:
            self._reconciler.wake(key)

    def _was_here(self, pool: Pool) -> bool:
        """Whether a pool is open here, or says so."""
        return self.is_open(pool.meta.name) or any(
            u.node == self._runtime.node for u in pool.status.usage
        )

    def _member(self, pool: Pool) -> PoolMember | None:
        node = self._runtime.node
        return next((m for m in pool.spec.members if m.node == node), None)

    async def _reconcile(self, key: str) -> float | None:
        pool = await self._pools.fresh(key)
        if pool is None:
            return None
        member, node = self._member(pool), self._runtime.node
        if member is None:
            if self._was_here(pool):
                await self._engine.close_pool(pool.meta.id, destroy=True)
                self._open.pop(pool.meta.name, None)
                await self._pools.mutate(key, lambda p: domain.without_usage(p, node))
            return None
        if pool.meta.deleting_at is not None:
            if all(u.node != node for u in pool.status.usage):
                return None
            # Opened first, for a restarted service does not know yet what there is to remove.
            await self._engine.open_pool(self._on_node(pool, member))
            await self._engine.close_pool(pool.meta.id, destroy=True)
            self._open.pop(pool.meta.name, None)
            await self._pools.mutate(key, lambda p: domain.without_usage(p, node))
            return None
        try:
            usage = await self._engine.open_pool(self._on_node(pool, member))
        except TrivetError as error:
            self._open.pop(pool.meta.name, None)
            await self._tell(key, "false", "OpenFailed", error.detail)
            raise
        disks = frozenset(d.disk for d in usage.disks)
        newly = self._open.get(pool.meta.name) != disks
        self._open[pool.meta.name] = disks
        usage = usage.model_copy(update={"node": node})
        engine = self._engine.name
        await self._pools.mutate(key, lambda p: domain.with_usage(p, usage, engine))
        lacks = [d for d in member.disks if d not in disks]
        without = f"without {', '.join(lacks)}" if lacks else ""
        await self._tell(key, "true", "DisksMissing" if lacks else "Open", without)
        for callback in self._callbacks if newly else ():
            callback()
        return None

    def _on_node(self, pool: Pool, member: PoolMember) -> PoolOnNode:
        """The part of the pool here; it is opened without a disk that is not found now, and not
        at all without any."""
        devices: list[str] = []
        for name in member.disks:
            disk = self._disks.get(name)
            there = disk is not None and disk.status.phase is Phase.READY
            failed = disk is not None and disk.status.health is DiskHealth.FAILED
            facts = disk.status.facts if disk is not None and there and not failed else None
            devices.append(facts.device if facts else "")
        if member.disks and not any(devices):
            named = ", ".join(member.disks)
            detail = f"pool {pool.meta.name}: no disk of it is found on {member.node}: {named}"
            raise Retry(NOT_READY, detail, retry_after_s=5.0)
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
