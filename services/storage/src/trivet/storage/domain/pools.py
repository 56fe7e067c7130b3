"""Pools: which one a volume goes to, and how a pool is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trivet.contracts.resource import Phase
from trivet.contracts.storage.pool import Pool, PoolUsage
from trivet.contracts.storage.volume import Volume

DEFAULT = "default"
USAGE_STEP = 0.01
"""Usage is told again when it moved by this share of the member's size: it changes all the
time, and the store is for what is decided."""


def default_pool(pools: Sequence[Pool]) -> Pool | None:
    """The pool of volumes that name none: `default`, else the first that is ready by name."""
    alive = [p for p in pools if p.meta.deleting_at is None]
    named = [p for p in alive if p.meta.name == DEFAULT]
    ready = [p for p in alive if p.status.phase in (Phase.READY, Phase.DEGRADED)]
    return next(iter([*named, *sorted(ready, key=lambda p: p.meta.name)]), None)


def with_usage(pool: Pool, usage: PoolUsage) -> Pool:
    """The pool knowing a member's usage; unchanged when it moved too little to be told."""
    old = next((u for u in pool.status.usage if u.node == usage.node), None)
    if old is not None and (old.size_bytes, old.reflink) == (usage.size_bytes, usage.reflink):
        moved = abs(old.used_bytes - usage.used_bytes)
        if moved < USAGE_STEP * max(usage.size_bytes, 1):
            return pool
    others = [u for u in pool.status.usage if u.node != usage.node]
    return pool.with_status(usage=tuple(sorted([*others, usage], key=lambda u: u.node)))


def without_usage(pool: Pool, node: str) -> Pool:
    """The pool without that member's usage."""
    return pool.with_status(usage=tuple(u for u in pool.status.usage if u.node != node))


def with_phase(pool: Pool, claimed_bytes: int) -> Pool:
    """The pool with the phase that its members' usage gives it, and what is promised of it."""
    seen = {u.node for u in pool.status.usage}
    members = {m.node for m in pool.spec.members}
    if pool.meta.deleting_at is not None:
        phase = Phase.DELETING
    elif members <= seen:
        phase = Phase.READY
    elif members & seen:
        phase = Phase.DEGRADED
    else:
        phase = Phase.PENDING
    observed = pool.meta.generation if phase is Phase.READY else pool.status.observed_generation
    return pool.with_status(phase=phase, claimed_bytes=claimed_bytes, observed_generation=observed)


def in_pool(volumes: Iterable[Volume], pool: str) -> list[Volume]:
    """The volumes that lie in a pool, or are going to."""
    return [v for v in volumes if pool in (v.status.pool, v.spec.pool)]
