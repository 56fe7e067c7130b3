"""The ledgers of promised space in the store: one a pool member, changed by compare-and-swap.

A promise is made before anything is written to a disk, and taken back when the volume is gone;
`sweep` takes back what a killed process left behind, once the store positively lacks the volume.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trivet.contracts.errors import UNAVAILABLE, Retry
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.pool import Pool
from trivet.runtime.store import Change, Store
from trivet.runtime.values import Values
from trivet.storage.domain.space import Ledger, Member, SpaceClaim

PREFIX = "ledger."


def ledger_key(pool: ResourceId, node: str) -> str:
    """The key of a member's ledger."""
    return f"{PREFIX}{pool}.{node}"


@dataclass(eq=False)
class _Asked:
    """A change that waits for its ledger; once it was its turn, how that went."""

    change: Callable[[Ledger], Ledger]
    done: bool = False
    failure: Exception | None = None


class Ledgers:
    """Reads and changes ledgers; fed, it knows them without asking."""

    def __init__(self, store: Store) -> None:
        self._ledgers = Values(store, PREFIX, Ledger)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._asked: dict[str, list[_Asked]] = defaultdict(list)

    def take(self, change: Change) -> None:
        """A step of the feed."""
        self._ledgers.take(change)

    def members(self, pool: Pool) -> tuple[Member, ...]:
        """The pool's members whose space is known, with what is promised of it: as of about now,
        for a claim looks again."""
        return tuple(
            Member(usage, self.read(pool.meta.id, usage.node), pool.spec.overcommit)
            for usage in pool.status.usage
        )

    def read(self, pool: ResourceId, node: str) -> Ledger:
        """A member's ledger, from the copy."""
        return self._ledgers.peek(ledger_key(pool, node)) or Ledger()

    async def claim(
        self, pool: Pool, node: str, volume: ResourceId, claim: SpaceClaim
    ) -> str | None:
        """Promise a volume space on a member; why that can't be, or None: it is promised."""
        usage = next((u for u in pool.status.usage if u.node == node), None)
        if usage is None:
            return f"{node} has not told its space yet"
        refusal: list[str] = []

        def promise(ledger: Ledger) -> Ledger:
            refusal.clear()
            why = Member(usage, ledger, pool.spec.overcommit).refusal(volume, claim)
            if why is not None:
                refusal.append(why)
                return ledger
            had = ledger.claims.get(volume)
            same = had is not None and had.disk == claim.disk
            if had is not None and same and had.size_bytes >= claim.size_bytes:
                return ledger
            return ledger.with_claim(volume, claim)

        await self._change(pool.meta.id, node, promise)
        return refusal[0] if refusal else None

    async def settle(
        self, pool: ResourceId, node: str, holder: ResourceId, claim: SpaceClaim
    ) -> None:
        """Make a promise what is really taken; one that is not there is not made."""

        def change(ledger: Ledger) -> Ledger:
            return ledger.with_claim(holder, claim) if holder in ledger.claims else ledger

        await self._change(pool, node, change)

    async def release(self, pool: ResourceId, node: str, volume: ResourceId) -> None:
        """Take a promise back; none there is fine."""
        await self._change(pool, node, lambda ledger: ledger.without(volume))

    async def _change(
        self, pool: ResourceId, node: str, change: Callable[[Ledger], Ledger]
    ) -> None:
        """Those that come while a ledger is being written share the next write of it: apart they
        would only wait for each other, or lose to each other again and again."""
        key, mine = ledger_key(pool, node), _Asked(change)
        self._asked[key].append(mine)
        try:
            async with self._locks[key]:
                if mine in self._asked[key]:
                    together, self._asked[key] = self._asked[key], []
                    await self._change_all(key, together)
        finally:
            if mine in self._asked[key]:
                self._asked[key].remove(mine)
        if mine.failure is not None:
            raise mine.failure
        if not mine.done:
            detail = f"{key}: whoever was changing it for all was stopped"
            raise Retry(UNAVAILABLE, detail, retry_after_s=0.1)

    async def _change_all(self, key: str, together: Sequence[_Asked]) -> None:
        def change(found: Ledger | None) -> Ledger:
            ledger = found or Ledger()
            for one in together:
                ledger = one.change(ledger)
            return ledger

        try:
            await self._ledgers.change(key, change)
        except Exception as error:  # noqa: BLE001 - each of them is told, as its own failure
            for one in together:
                one.failure = error
        else:
            for one in together:
                one.done = True
