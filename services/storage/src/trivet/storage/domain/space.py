"""Space: what of a pool member is promised, and whether more may be.

A ledger a member says which volume was promised how much; it changes by compare-and-swap and
before anything is made, so that two who want the last gigabyte can't both have it. Thin volumes
may be promised more than there is (`overcommit`), preallocated ones only what is there, and
nothing when the member is nearly full in fact, whoever filled it.
"""

from __future__ import annotations

from dataclasses import dataclass

from trivet.contracts.model import Model, ResourceId
from trivet.contracts.storage.pool import PoolUsage

NEARLY_FULL = 0.95


class SpaceClaim(Model):
    """What a volume (of that key in the store) was promised on a member."""

    key: str
    size_bytes: int
    thin: bool = True


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

    def refusal(self, volume: ResourceId, claim: SpaceClaim) -> str | None:
        """Why `volume` can't be promised that (None: it can). What it has already counts."""
        had = self.ledger.claims.get(volume)
        if had is not None and had.size_bytes >= claim.size_bytes:
            return None
        others = self.ledger.without(volume)
        size, used = self.usage.size_bytes, self.usage.used_bytes
        if others.claimed_bytes + claim.size_bytes > int(size * self.overcommit):
            left = int(size * self.overcommit) - others.claimed_bytes
            return f"{self.node} can promise {left} bytes more"
        if not claim.thin:
            more = claim.size_bytes - (had.size_bytes if had else 0)
            left = min(size - others.thick_bytes - claim.size_bytes, size - used - more)
            if left < 0:
                return f"{self.node} lacks {-left} bytes to allocate all of it now"
        if used > size * NEARLY_FULL:
            return f"{self.node} is full: {used} of {size} bytes are used"
        return None
