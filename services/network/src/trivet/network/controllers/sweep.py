"""Finds claims whose owner does not exist, and lets go of them.

A process that is killed between a claim and the resource it was for leaves the claim behind.
Nobody can tell that from one whose resource is about to be stored, except by waiting: a claim
is let go when its owner has been missing for `claim_age_s`, and the store itself, asked then,
still does not have it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from trivet.contracts.model import ResourceId
from trivet.network.holdings import ALL_CLAIMS, Holdings
from trivet.runtime.service import Service

log = logging.getLogger(__name__)


class Sweep:
    """The controller; what it has seen missing is its own memory, and begins anew with it."""

    def __init__(self, service: Service, holdings: Holdings) -> None:
        self._clock = service.runtime.clock
        self._age_s = service.runtime.settings.network.claim_age_s
        self._holdings = holdings
        self._missing_since: dict[ResourceId, float] = {}

    async def run(self) -> None:
        """Look from time to time, until cancelled."""
        self._missing_since.clear()
        while True:
            await self.look()
            await self._clock.sleep(self._age_s / 4)

    async def look(self) -> None:
        """Let go of what has been nobody's for long enough."""
        claims = await self._holdings.claims.owners(ALL_CLAIMS)
        entries = list(await self._holdings.subnets.entries())
        owners = {*claims.values(), *(network for _, network in entries)}
        # Read after the claims: whoever claimed before and stored since is in it.
        recorded = await self._holdings.recorded()
        due = self._due(owners - recorded)
        for key, owner in claims.items():
            if owner in due:
                log.warning("%s was left behind by %s, which does not exist", key, owner)
                await self._holdings.claims.release(key, owner)
        for project, network in entries:
            if network in due:
                await self._holdings.subnets.remove(project, {network})

    def _due(self, missing: Iterable[ResourceId]) -> set[ResourceId]:
        now = self._clock.monotonic()
        self._missing_since = {id_: self._missing_since.get(id_, now) for id_ in missing}
        return {id_ for id_, since in self._missing_since.items() if now - since >= self._age_s}
