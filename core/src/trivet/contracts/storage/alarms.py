"""When something of the storage service wants attention. One entry a rule, most urgent first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from trivet.contracts.alarm import AlarmRule, Severity, alarm_kind
from trivet.contracts.resource import Phase
from trivet.contracts.storage.disk import DISK, Disk, DiskHealth, DiskRole
from trivet.contracts.storage.pool import POOL, Pool
from trivet.contracts.storage.volume import VOLUME, ReplicaState, Volume

ALARM = alarm_kind("storage")

_ROOM = (
    "Make room: delete volumes, snapshots or images that are not needed (`trivet volume list`), "
    "or give the pool more disks (`trivet pool edit`). Discards in guests (fstrim) give space back."
)


def _space(reason: str) -> Callable[[Pool, datetime], str | None]:
    """What the pool says of its space, where it says `reason`."""

    def when(pool: Pool, now: datetime) -> str | None:
        told = pool.status.condition("Space")
        if told is None or told.status != "false" or told.reason != reason:
            return None
        return f"pool {pool.meta.name}: {told.message}"

    return when


def _overcommitted(pool: Pool, now: datetime) -> str | None:
    told = pool.status.condition("Promised")
    if told is None or told.status != "false":
        return None
    return f"pool {pool.meta.name}: {told.message}"


def _rots(disk: Disk, now: datetime) -> str | None:
    blocks = disk.status.rotten_blocks
    told = f"disk {disk.meta.name} on {disk.status.node}: {blocks} blocks were wrong"
    return told if blocks else None


def _differs(volume: Volume, now: datetime) -> str | None:
    told = volume.status.condition("Consistent")
    if told is None or told.reason != "Undecided":
        return None
    return f"volume {volume.meta.name}: {told.message}"


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


def _not_grown(volume: Volume, now: datetime) -> str | None:
    told = volume.status.condition("Grown")
    if volume.meta.deleting_at is not None or told is None or told.status != "false":
        return None
    return f"volume {volume.meta.name} can't grow: {told.message or told.reason}"


def _unplaced(volume: Volume, now: datetime) -> str | None:
    told = volume.status.condition("Placed")
    if volume.meta.deleting_at is not None or told is None or told.status != "false":
        return None
    return f"volume {volume.meta.name} has no place: {told.message or told.reason}"


def _disk(*healths: DiskHealth) -> Callable[[Disk, datetime], str | None]:
    """What is told of a disk with a role in one of these healths."""

    def when(disk: Disk, now: datetime) -> str | None:
        if disk.spec.role is DiskRole.NONE or disk.status.health not in healths:
            return None
        status = disk.status
        return f"disk {disk.meta.name} on {status.node} is {status.health}: {status.why}"

    return when


RULES: tuple[AlarmRule[Pool] | AlarmRule[Volume] | AlarmRule[Disk], ...] = (
    AlarmRule(
        "disk-bad",
        DISK,
        Severity.CRITICAL,
        "A disk fails, or is gone",
        "What lay on it is copied elsewhere by itself where there is room: `trivet node outlook "
        "NODE` says what is at stake. Replace it, and give the new one to the pool (`trivet pool "
        "edit`); `trivet disk readmit NAME` takes it back if it was not to blame.",
        _disk(DiskHealth.ISOLATED, DiskHealth.FAILED, DiskHealth.MISSING),
    ),
    AlarmRule(
        "disk-rots",
        DISK,
        Severity.CRITICAL,
        "A disk gave back other bytes than were written to it",
        "They were copied again from another replica. Isolate the disk (`trivet disk isolate "
        "NAME`) and replace it; `trivet disk readmit NAME` says that it was not to blame.",
        _rots,
    ),
    AlarmRule(
        "volume-differs",
        VOLUME,
        Severity.CRITICAL,
        "Replicas of a volume differ, and nobody knows which are right",
        "Compare its content with a backup or inside its guest; `trivet volume move-replica` and "
        "`trivet volume edit --replicas` decide which replica stays.",
        _differs,
    ),
    AlarmRule(
        "disk-warned",
        DISK,
        Severity.WARNING,
        "A disk is slow, has errors, or is nearly worn out",
        "It works on; have another at hand (a disk with the role `spare` takes its place by "
        "itself). `trivet disk isolate NAME` moves away what lies on it.",
        _disk(DiskHealth.WARNED),
    ),
    AlarmRule(
        "pool-full",
        POOL,
        Severity.CRITICAL,
        "A pool is full",
        f"Guests that write are paused; they resume by themselves. {_ROOM}",
        _space("PoolFull"),
    ),
    AlarmRule(
        "pool-nearly-full",
        POOL,
        Severity.CRITICAL,
        "A pool is more than 90 % full",
        f"Guests that write are paused when it is full. {_ROOM}",
        _space("NearlyFull"),
    ),
    AlarmRule(
        "pool-filling",
        POOL,
        Severity.WARNING,
        "A pool is more than 80 % full",
        _ROOM,
        _space("Filling"),
    ),
    AlarmRule(
        "pool-overcommitted",
        POOL,
        Severity.WARNING,
        "More is promised of a pool than there is, and half of it is used",
        "Thin volumes may never need all of it; when they do, guests that write are paused. "
        f"`trivet pool edit --overcommit 1` promises no more than there is. {_ROOM}",
        _overcommitted,
        after_s=60,
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
    AlarmRule(
        "volume-not-grown",
        VOLUME,
        Severity.WARNING,
        "There is no room for a volume to grow",
        f"It is tried again by itself, and works at its old size. {_ROOM}",
        _not_grown,
        after_s=30,
    ),
)
