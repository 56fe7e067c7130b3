"""Space: what of a pool member is promised, and whether more may be.

A ledger a member says which volume was promised how much; it changes by compare-and-swap and
before anything is made, so that two who want the last gigabyte can't both have it. Thin volumes
may be promised more than there is (`overcommit`), preallocated ones only what is there, and
nothing when the member is nearly full in fact, whoever filled it. A member of several disks is
counted as a whole and disk by disk, for a replica lies on one of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from trivet.contracts.model import Model, ResourceId
from trivet.contracts.storage.pool import PoolUsage

NEARLY_FULL = 0.95


class SpaceClaim(Model):
    """What a volume (of that key in the store) was promised on a member; `disk`: on which of its
    disks ('': the member is no disks, or it does not matter)."""

    key: str
    size_bytes: int
    thin: bool = True
    disk: str = ""


class Ledger(Model):
    """All promises of one member."""

    claims: dict[ResourceId, SpaceClaim] = {}

    @property
    def claimed_bytes(self) -> int:
        """All that is promised."""
        return sum(claim.size_bytes for claim in self.claims.values())

    @property
    def thick_bytes(self) -> int:
        """What is promised to preallocated volumes."""
        return sum(claim.size_bytes for claim in self.claims.values() if not claim.thin)

    def on_disk(self, disk: str) -> Ledger:
        """What of it is promised on one disk."""
        return Ledger(claims={v: c for v, c in self.claims.items() if c.disk == disk})

    def with_claim(self, volume: ResourceId, claim: SpaceClaim) -> Ledger:
        """This ledger with that promise instead of the volume's former one."""
        return Ledger(claims={**self.claims, volume: claim})

    def without(self, volume: ResourceId) -> Ledger:
        """This ledger without the volume's promise."""
        if volume not in self.claims:
            return self
        return Ledger(claims={v: c for v, c in self.claims.items() if v != volume})


@dataclass(frozen=True)
class Member:
    """A pool member as space is counted: what is there, what is used, what is promised."""

    usage: PoolUsage
    ledger: Ledger
    overcommit: float

    @property
    def node(self) -> str:
        """The member's node."""
        return self.usage.node

    @property
    def promisable_bytes(self) -> int:
        """What may still be promised to thin volumes; below 0 when it was promised before the
        member shrank or the overcommit was lowered."""
        return int(self.usage.size_bytes * self.overcommit) - self.ledger.claimed_bytes

    def promised_share(self, disk: str = "") -> float:
        """What is promised of the member, or of one of its disks, over what could be."""
        usage = self.usage.disk(disk) if disk else None
        size = usage.size_bytes if usage else self.usage.size_bytes
        ledger = self.ledger.on_disk(disk) if usage else self.ledger
        return ledger.claimed_bytes / (size * self.overcommit) if size else 1.0

    def refusal(self, volume: ResourceId, claim: SpaceClaim) -> str | None:
        """Why `volume` can't be promised that (None: it can). What it has already counts."""
        had = self.ledger.claims.get(volume)
        if had is not None and had.size_bytes >= claim.size_bytes and had.disk == claim.disk:
            return None
        whole = _Space(self.node, self.usage.size_bytes, self.usage.used_bytes, self.ledger)
        why = whole.refusal(volume, claim, self.overcommit)
        if why is not None or not claim.disk or not self.usage.disks:
            return why
        usage = self.usage.disk(claim.disk)
        if usage is None:
            return f"disk {claim.disk} is not open on {self.node}"
        ledger = self.ledger.on_disk(claim.disk)
        one = _Space(f"disk {claim.disk}", usage.size_bytes, usage.used_bytes, ledger)
        return one.refusal(volume, claim, self.overcommit)


@dataclass(frozen=True)
class _Space:
    """A member, or one of its disks."""

    name: str
    size: int
    used: int
    ledger: Ledger

    def refusal(self, volume: ResourceId, claim: SpaceClaim, overcommit: float) -> str | None:
        had, others = self.ledger.claims.get(volume), self.ledger.without(volume)
        if others.claimed_bytes + claim.size_bytes > int(self.size * overcommit):
            left = int(self.size * overcommit) - others.claimed_bytes
            return f"{self.name} can promise {left} bytes more"
        if not claim.thin:
            more = claim.size_bytes - (had.size_bytes if had else 0)
            left = min(
                self.size - others.thick_bytes - claim.size_bytes, self.size - self.used - more
            )
            if left < 0:
                return f"{self.name} lacks {-left} bytes to allocate all of it now"
        if self.used > self.size * NEARLY_FULL:
            return f"{self.name} is full: {self.used} of {self.size} bytes are used"
        return None
