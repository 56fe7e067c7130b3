"""Which spare takes the place of which disk: pure.

A data disk that was isolated by what was measured, has failed, or is missing for longer than what
is stale is waited for, gets the first spare (by name) of its own node that is well and blank.
Each disk gets one spare, ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trivet.contracts.storage.disk import Disk, DiskHealth, DiskRole
from trivet.contracts.storage.pool import Pool
from trivet.storage.domain.places import Places


@dataclass(frozen=True)
class UseSpare:
    """Give `spare` to the pool, on that node, in the place of `disk`."""

    pool: str
    node: str
    disk: str
    spare: str


def spares_used(
    pools: Sequence[Pool], disks: Sequence[Disk], places: Places, missing_after_s: float
) -> tuple[UseSpare, ...]:
    """What is to be done now; what was begun and cut is among it again."""
    known = {disk.meta.name: disk for disk in disks}
    free = [d for d in disks if d.spec.role is DiskRole.SPARE and d.status.health is DiskHealth.OK]
    given = {d.status.replaced_by for d in disks if d.status.replaced_by}
    plan: list[UseSpare] = []
    for pool in sorted(pools, key=lambda p: p.meta.name):
        if pool.meta.deleting_at is not None:
            continue
        for member in pool.spec.members:
            for name in member.disks:
                disk = known.get(name)
                if disk is None:
                    continue
                begun = disk.status.replaced_by
                if begun is not None:
                    if begun not in member.disks and begun in known:
                        plan.append(UseSpare(pool.meta.name, member.node, name, begun))
                    continue
                if not _is_bad(name, places, missing_after_s):
                    continue
                spare = next((s for s in free if _fits(s, member.node, given)), None)
                if spare is not None:
                    given.add(spare.meta.name)
                    plan.append(UseSpare(pool.meta.name, member.node, name, spare.meta.name))
    return tuple(plan)


def _is_bad(name: str, places: Places, missing_after_s: float) -> bool:
    view = places.disk(name)
    if view.health is DiskHealth.MISSING:
        return view.missing_s >= missing_after_s
    return view.health in (DiskHealth.ISOLATED, DiskHealth.FAILED)


def _fits(spare: Disk, node: str, given: set[str]) -> bool:
    blank = spare.status.facts is not None and spare.status.facts.holds == ""
    return spare.status.node == node and spare.meta.name not in given and blank
