"""Which guests give memory back while their node is short of it, and how much: pure.

A node is short once less is available than a part of what is reserved for itself. Guests that
have a floor (`memory_min_mib`) then give, in proportion to what they have above it, what is
missing to that reserve; a guest is never asked for what it uses itself, nor below its floor. They
get it back once there is so much more that they would not be asked for it again at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trivet.contracts.compute.balloon import HostMemory
from trivet.contracts.model import ResourceId

SHORT_PART = 0.5
"""Short: less than that part of the reserve is available."""

STEP_MIB = 16
"""Smaller changes are not worth asking for."""

GUEST_SPARE_MIB = 32
"""What a guest keeps available for itself beside what it uses."""


@dataclass(frozen=True)
class Guest:
    """A running guest with a floor: what it was made with, what it was asked to use, and what it
    could give without swapping (None: it does not tell, and is asked for nothing more)."""

    id: ResourceId
    most_mib: int
    floor_mib: int
    target_mib: int
    available_mib: int | None = None

    @property
    def can_give_mib(self) -> int:
        """What it can be asked for beyond what it gave."""
        if self.available_mib is None:
            return 0
        spare_mib = self.available_mib - GUEST_SPARE_MIB
        return max(0, min(self.target_mib - self.floor_mib, spare_mib))


def targets(
    host: HostMemory, reserve_mib: int, guests: Sequence[Guest]
) -> Mapping[ResourceId, int]:
    """The new targets of those guests that are to change."""
    missing_mib = reserve_mib - host.available_mib
    if host.available_mib < SHORT_PART * reserve_mib:
        return _taken(missing_mib, guests)
    if missing_mib < 0:
        return _given(-missing_mib, guests)
    return {}


def _taken(missing_mib: int, guests: Sequence[Guest]) -> dict[ResourceId, int]:
    offered = sum(g.can_give_mib for g in guests)
    part = min(1.0, missing_mib / offered) if offered else 0.0
    return _changed({g: g.target_mib - int(g.can_give_mib * part) for g in guests})


def _given(spare_mib: int, guests: Sequence[Guest]) -> dict[ResourceId, int]:
    gave = sum(g.most_mib - g.target_mib for g in guests)
    part = min(1.0, spare_mib / gave) if gave else 0.0
    return _changed({g: g.target_mib + int((g.most_mib - g.target_mib) * part) for g in guests})


def _changed(wanted: Mapping[Guest, int]) -> dict[ResourceId, int]:
    """Steps that are worth it; the last one to all that a guest was made with always is."""
    return {
        g.id: target
        for g, target in wanted.items()
        if abs(target - g.target_mib) >= STEP_MIB or (target == g.most_mib != g.target_mib)
    }
