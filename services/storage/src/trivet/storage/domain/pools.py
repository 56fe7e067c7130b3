"""Pools: which one a volume goes to, and how a pool is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from trivet.contracts.model import GIB, MIB
from trivet.contracts.resource import Condition, Phase
from trivet.contracts.storage.pool import Pool, PoolUsage
from trivet.contracts.storage.volume import Volume

DEFAULT = "default"
USAGE_STEP = 0.01
"""Usage is told again when it moved by this share of the member's size: it changes all the
time, and the store is for what is decided."""


FILLING, NEARLY_FULL = 0.80, 0.90
PROMISES_WATCHED = 0.50
"""From here on it is told that more is promised than there is."""

ROOM_SHARE, ROOM_LEAST, ROOM_MOST = 0.01, 16 * MIB, GIB
"""A member with less room than this share of it is full: guests that found no space there would
soon find none again, so they wait."""
REMEDY = "grow the pool, delete snapshots or volumes, or discard in the guests (fstrim)"


def is_full(usage: PoolUsage) -> bool:
    """Whether there is no room to write on a member."""
    room = min(max(int(usage.size_bytes * ROOM_SHARE), ROOM_LEAST), ROOM_MOST)
    return usage.size_bytes - usage.used_bytes < room


def starved(pool: str, usage: PoolUsage) -> str:
    """Why writes find no space on a member of `pool` ('': they do)."""
    return f"pool {pool} is full on {usage.node}: {REMEDY}" if is_full(usage) else ""


def space_condition(usages: Sequence[PoolUsage]) -> Condition:
    """How much room there is where there is least."""
    worst = max(usages, key=_used_share, default=None)
    if worst is None or _used_share(worst) < FILLING:
        return Condition(type="Space", status="true", reason="Enough")
    if is_full(worst):
        reason, why = (
            "PoolFull",
            f"guests that write to it are paused until there is room: {REMEDY}",
        )
    else:
        reason = "Filling" if _used_share(worst) < NEARLY_FULL else "NearlyFull"
        why = REMEDY
    # The share is told in tens: a message that changes with each write would be a write too.
    told = f"over {int(_used_share(worst) * 10) * 10} % of it is used on {worst.node}: {why}"
    return Condition(type="Space", status="false", reason=reason, message=told)


def promised_condition(usages: Sequence[PoolUsage], claimed_bytes: int) -> Condition:
    """Whether more is promised than there is: what thin volumes are for, and nothing to be warned
    of until a good part of the pool is used."""
    size = sum(u.size_bytes for u in usages)
    if claimed_bytes <= size or not usages:
        return Condition(type="Promised", status="true", reason="WithinSize")
    message = (
        f"{claimed_bytes / GIB:.0f} GiB are promised, {size / GIB:.0f} GiB are there:"
        f" when volumes fill up, {REMEDY}"
    )
    filling = max(map(_used_share, usages)) >= PROMISES_WATCHED
    status = "false" if filling else "true"
    return Condition(type="Promised", status=status, reason="Overcommitted", message=message)


def _used_share(usage: PoolUsage) -> float:
    return usage.used_bytes / usage.size_bytes if usage.size_bytes else 0.0


def default_pool(pools: Sequence[Pool]) -> Pool | None:
    """The pool of volumes that name none: `default`, else the first that is ready by name."""
    alive = [p for p in pools if p.meta.deleting_at is None]
    named = [p for p in alive if p.meta.name == DEFAULT]
    ready = [p for p in alive if p.status.phase in (Phase.READY, Phase.DEGRADED)]
    return next(iter([*named, *sorted(ready, key=lambda p: p.meta.name)]), None)


def with_usage(pool: Pool, usage: PoolUsage, engine: str) -> Pool:
    """The pool knowing a member's usage; unchanged when it moved too little to be told."""
    if pool.status.engine != engine:
        pool = pool.with_status(engine=engine)
    old = next((u for u in pool.status.usage if u.node == usage.node), None)
    disks = {d.disk: d.size_bytes for d in usage.disks}
    if (
        old is not None
        and (old.size_bytes, old.reflink) == (usage.size_bytes, usage.reflink)
        and {d.disk: d.size_bytes for d in old.disks} == disks
    ):
        moved = abs(old.used_bytes - usage.used_bytes)
        alike = space_condition([old]).reason == space_condition([usage]).reason
        if alike and moved < USAGE_STEP * max(usage.size_bytes, 1):
            return pool
    others = [u for u in pool.status.usage if u.node != usage.node]
    return pool.with_status(usage=tuple(sorted([*others, usage], key=lambda u: u.node)))


def without_usage(pool: Pool, node: str) -> Pool:
    """The pool without that member's usage."""
    return pool.with_status(usage=tuple(u for u in pool.status.usage if u.node != node))


def with_phase(pool: Pool, claimed_bytes: int, now: datetime) -> Pool:
    """The pool with the phase and conditions that its members' usage gives it, and what is
    promised of it."""
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
    status = pool.status.with_condition(space_condition(pool.status.usage), now)
    promised = promised_condition(pool.status.usage, claimed_bytes)
    told = pool.model_copy(update={"status": status.with_condition(promised, now)})
    return told.with_status(phase=phase, claimed_bytes=claimed_bytes, observed_generation=observed)


def in_pool(volumes: Iterable[Volume], pool: str) -> list[Volume]:
    """The volumes that lie in a pool, or are going to."""
    return [v for v in volumes if pool in (v.status.pool, v.spec.pool)]
