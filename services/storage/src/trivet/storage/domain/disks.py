"""Disks: what a disk is called, and what may be done with it."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime

from trivet.contracts.errors import INVALID, Refused
from trivet.contracts.resource import Phase
from trivet.contracts.storage.codes import DISK_NOT_BLANK
from trivet.contracts.storage.disk import Disk, DiskFacts, DiskHealth, DiskRole


def disk_name(node: str, facts: DiskFacts) -> str:
    """A name for a disk that stays its own: the node, and its serial as far as names go.

    A serial that a name can't hold is told apart by a digest of it.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", facts.serial.lower()).strip("-")
    name = f"{node}-{plain}".rstrip("-")
    if plain == facts.serial and len(name) <= 63:
        return name
    digest = hashlib.sha256(facts.serial.encode()).hexdigest()[:8]
    return f"{name[: 63 - 9].rstrip('-')}-{digest}"


def check_role(before: Disk, role: DiskRole) -> None:
    """Raise `Refused(DISK_NOT_BLANK)` unless the disk may take `role`."""
    if role is before.spec.role or role is DiskRole.NONE:
        return
    facts = before.status.facts
    if facts is None or facts.holds != "":
        holds = facts.holds if facts else "unknown"
        raise Refused(
            DISK_NOT_BLANK,
            f"disk {before.meta.name} holds: {holds}",
            hint="only a disk that was proven blank can be given a role",
        )


def isolated(disk: Disk, *, wish: bool) -> Disk:
    """The disk that somebody wants empty, or in use again. Raises `Refused` where it has no part
    in anything."""
    if wish and disk.spec.role is not DiskRole.DATA:
        raise Refused(
            INVALID,
            f"disk {disk.meta.name} has the role `{disk.spec.role}`: nothing lies on it",
            hint="only a disk with the role `data` is isolated",
        )
    changed = disk.with_spec(disk.spec.model_copy(update={"isolated": wish}))
    return changed.with_status(observed_generation=changed.meta.generation)


def judged(disk: Disk, health: DiskHealth, why: str, now: datetime) -> Disk:
    """The disk found in that health; unchanged where it is known to be in it."""
    if disk.status.health is health:
        return disk
    return disk.with_status(health=health, why=why, health_since=now)


def answering(disk: Disk, answers: bool) -> Disk:
    """The disk that answers now, or does not."""
    return disk if disk.status.answers == answers else disk.with_status(answers=answers)


def is_of_use(disk: Disk | None) -> bool:
    """Whether what lies on it can be written to now, as far as is known; what is no disk of its
    own (None) can."""
    if disk is None:
        return True
    gone = (DiskHealth.MISSING, DiskHealth.FAILED)
    return disk.status.answers and disk.status.health not in gone


def counted_rewritten(disk: Disk, blocks: int) -> Disk:
    """The disk on which so many more blocks were written again, that it had not given back."""
    return disk.with_status(rewritten_blocks=disk.status.rewritten_blocks + blocks)


def missing(disk: Disk, now: datetime) -> Disk:
    """The disk that is not found any more. One that was isolated or failed stays so."""
    gone = disk.with_status(phase=Phase.UNKNOWN)
    if disk.status.health in (DiskHealth.ISOLATED, DiskHealth.FAILED):
        return gone
    return judged(gone, DiskHealth.MISSING, "it is not found", now)


def found(disk: Disk, now: datetime) -> Disk:
    """The disk that is there, after it was missing or not."""
    was_missing = disk.status.health is DiskHealth.MISSING
    return judged(disk, DiskHealth.OK, "", now) if was_missing else disk
