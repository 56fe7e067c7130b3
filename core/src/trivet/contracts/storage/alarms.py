"""When something of the storage service wants attention. One entry a rule, most urgent first."""

from __future__ import annotations

from datetime import datetime

from trivet.contracts.alarm import AlarmRule, Severity, alarm_kind
from trivet.contracts.model import GIB
from trivet.contracts.resource import Phase
from trivet.contracts.storage.pool import POOL, Pool, PoolUsage
from trivet.contracts.storage.volume import VOLUME, ReplicaState, Volume

ALARM = alarm_kind("storage")

FILLING = 0.80
NEARLY_FULL = 0.90
FULL = 0.98

_ROOM = (
    "Make room: delete volumes, snapshots or images that are not needed (`trivet volume list`), "
    "or give the pool more disks (`trivet pool edit`). Discards in guests (fstrim) give space back."
)


def _used(usage: PoolUsage) -> float:
    return usage.used_bytes / usage.size_bytes if usage.size_bytes else 0.0


def _between(pool: Pool, least: float, most: float) -> str | None:
    worst = max(pool.status.usage, key=_used, default=None)
    if worst is None or not least <= _used(worst) < most:
        return None
    free_gib = (worst.size_bytes - worst.used_bytes) / GIB
    share = int(100 * _used(worst))
    return f"pool {pool.meta.name} is {share} % full on {worst.node}: {free_gib:.1f} GiB are left"


def _full(pool: Pool, now: datetime) -> str | None:
    return _between(pool, FULL, float("inf"))


def _nearly_full(pool: Pool, now: datetime) -> str | None:
    return _between(pool, NEARLY_FULL, FULL)


def _filling(pool: Pool, now: datetime) -> str | None:
    return _between(pool, FILLING, NEARLY_FULL)


def _missing(pool: Pool, now: datetime) -> str | None:
    if pool.meta.deleting_at is not None or pool.status.phase is Phase.READY:
        return None
    seen = {u.node for u in pool.status.usage}
    gone = sorted({m.node for m in pool.spec.members} - seen)
    return f"pool {pool.meta.name} is not open on {', '.join(gone)}" if gone else None


def _lost(volume: Volume, now: datetime) -> str | None:
    if volume.status.phase is not Phase.FAILED:
        return None
    return f"volume {volume.meta.name} has no replica with all its data: {_replicas(volume)}"


def _degraded(volume: Volume, now: datetime) -> str | None:
    if volume.status.phase is not Phase.DEGRADED:
        return None
    return f"volume {volume.meta.name} has fewer good replicas than asked: {_replicas(volume)}"


def _replicas(volume: Volume) -> str:
    bad = [r for r in volume.status.replicas if r.state is not ReplicaState.IN_SYNC]
    return ", ".join(f"{r.node} {r.state}" + (f" ({r.reason})" if r.reason else "") for r in bad)


def _unplaced(volume: Volume, now: datetime) -> str | None:
    told = volume.status.condition("Placed")
    if volume.meta.deleting_at is not None or told is None or told.status != "false":
        return None
    return f"volume {volume.meta.name} has no place: {told.message or told.reason}"


RULES: tuple[AlarmRule[Pool] | AlarmRule[Volume], ...] = (
    AlarmRule(
        "pool-full",
        POOL,
        Severity.CRITICAL,
        "A pool is full",
        f"Guests that write are paused; they resume by themselves. {_ROOM}",
        _full,
    ),
    AlarmRule(
        "pool-nearly-full",
        POOL,
        Severity.CRITICAL,
        "A pool is more than 90 % full",
        f"Guests that write are paused when it is full. {_ROOM}",
        _nearly_full,
    ),
    AlarmRule(
        "pool-filling", POOL, Severity.WARNING, "A pool is more than 80 % full", _ROOM, _filling
    ),
    AlarmRule(
        "pool-not-open",
        POOL,
        Severity.CRITICAL,
        "A pool is not open on a node that it lies on",
        "`trivet pool show NAME` and the storage service's log on that node say why; "
        "`trivet doctor` there looks at its disks and drivers.",
        _missing,
        after_s=60,
    ),
    AlarmRule(
        "volume-lost",
        VOLUME,
        Severity.CRITICAL,
        "A volume has no replica that can be trusted",
        "Bring back a node or disk that held one (`trivet volume show NAME`); the last good copy "
        "is never removed by itself. Otherwise restore it from a snapshot or backup.",
        _lost,
    ),
    AlarmRule(
        "volume-degraded",
        VOLUME,
        Severity.WARNING,
        "A volume has fewer good replicas than asked for",
        "Replicas are rebuilt by themselves where there is room: look at `trivet volume show "
        "NAME`, and bring back the node or disk that it names.",
        _degraded,
        after_s=10,
    ),
    AlarmRule(
        "volume-unplaced",
        VOLUME,
        Severity.WARNING,
        "There is no place for a volume",
        f"It is tried again by itself. {_ROOM}",
        _unplaced,
        after_s=30,
    ),
)
