"""The store as each node sees it: one truth, compare-and-swap, and a way there that fails.

A write that timed out may have happened, may happen later, or never. A node that is cut off
neither reads nor writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from trivet.contracts.errors import CONFLICT, TIMEOUT, Refused, Retry
from trivet.contracts.storage.volume import Volume

LATE_S = 6.0
TIMEOUT_S = 1.0
ATTEMPTS = 8


class Truth:
    """What a majority of the store's servers has."""

    def __init__(self, random: Random, volume: Volume) -> None:
        self.random = random
        self.volume = volume
        self.revision = 1
        self.cut: set[str] = set()
        self.faults = 0.0
        self.watchers: list[Callable[[], None]] = []

    def swap(self, revision: int, after: Volume) -> int:
        if revision != self.revision:
            raise Refused(CONFLICT, f"revision {self.revision}, not {revision}")
        self.volume = after
        self.revision += 1
        for told in self.watchers:
            asyncio.get_running_loop().call_later(0.002, told)
        return self.revision


class NodeVolumes:
    """The collection of volumes of one process on a node: the shape of `runtime.Collection`."""

    def __init__(self, truth: Truth, node: str) -> None:
        self._truth = truth
        self._node = node
        self._known: tuple[Volume, int] | None = None

    def key_of(self, resource: Volume) -> str:
        return resource.meta.name

    def by_id(self, id_: str) -> Volume | None:
        return self._truth.volume if self._known is None else self._known[0]

    async def fresh(self, key: str) -> Volume | None:
        await self._way()
        self._known = (self._truth.volume, self._truth.revision)
        await self._way()
        return self._known[0]

    async def mutate(self, key: str, change: Callable[[Volume], Volume]) -> Volume | None:
        current = self._known
        if current is None:
            await self.fresh(key)
            current = self._known
        for _ in range(ATTEMPTS):
            assert current is not None
            after = change(current[0])
            if after == current[0]:
                return after
            try:
                revision = await self._swap(current[1], after)
            except Refused:
                await self.fresh(key)
                current = self._known
            else:
                if self._known is None or self._known[1] < revision:
                    self._known = (after, revision)
                return after
        raise Retry(CONFLICT, "too many at once", retry_after_s=0.2)

    async def _swap(self, revision: int, after: Volume) -> int:
        truth = self._truth
        await self._way()
        fate = truth.random.random()
        if fate < truth.faults:
            await asyncio.sleep(TIMEOUT_S)
            raise Retry(TIMEOUT, "the write was lost", retry_after_s=0.2)
        if fate < 2 * truth.faults:
            late = truth.random.uniform(0, LATE_S)
            asyncio.get_running_loop().call_later(late, self._late, revision, after)
            await asyncio.sleep(min(TIMEOUT_S, late + 0.01))
            raise Retry(TIMEOUT, "the answer was lost", retry_after_s=0.2)
        made = truth.swap(revision, after)
        await self._way()
        return made

    def _late(self, revision: int, after: Volume) -> None:
        try:
            self._truth.swap(revision, after)
        except Refused:
            return

    async def _way(self) -> None:
        chance = self._truth.random.random()
        if chance < 0.5:
            await asyncio.sleep(0.005 if chance < 0.2 else 0.001)
        if self._node in self._truth.cut:
            await asyncio.sleep(TIMEOUT_S)
            if self._node in self._truth.cut:
                raise Retry(TIMEOUT, "the store can't be reached", retry_after_s=0.3)
