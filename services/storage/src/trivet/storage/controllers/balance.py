"""The duty of the leader towards pools that fill unevenly: one move at a time, by
`domain/balance`, done as if somebody had asked for it."""

from __future__ import annotations

import logging

from trivet.contracts.errors import TrivetError
from trivet.contracts.model import NodeName
from trivet.contracts.storage.endpoints.volume_move_replica import ENDPOINT, MoveReplicaRequest
from trivet.contracts.storage.pool import Pool
from trivet.contracts.storage.snapshot import Snapshot
from trivet.contracts.storage.volume import Volume
from trivet.runtime.collection import Collection
from trivet.runtime.service import Service
from trivet.storage.controllers.places import PlacesWatch
from trivet.storage.domain.balance import balance
from trivet.storage.domain.snapshots import snapshots_of
from trivet.storage.ledgers import Ledgers

log = logging.getLogger(__name__)


class Balancer:
    """Balances pools."""

    def __init__(
        self,
        service: Service,
        volumes: Collection[Volume],
        pools: Collection[Pool],
        snapshots: Collection[Snapshot],
        ledgers: Ledgers,
        watch: PlacesWatch,
    ) -> None:
        self._runtime = service.runtime
        self._volumes = volumes
        self._pools = pools
        self._snapshots = snapshots
        self._ledgers = ledgers
        self._watch = watch

    async def run(self) -> None:
        """Look from time to time, until cancelled; a node that has just come is given time."""
        while True:
            await self._runtime.clock.sleep(self._runtime.settings.storage.balance_s)
            for pool in self._pools.list():
                await self._look(pool)

    async def _look(self, pool: Pool) -> None:
        kept = self._snapshots.list()
        # A snapshot lies where it was taken; its volume stays beside it.
        volumes = [v for v in self._volumes.list() if v.status.pool == pool.meta.name]
        free = [v for v in volumes if not snapshots_of(v, kept)]
        move = balance(free, self._ledgers.members(pool), self._watch.places)
        if move is None:
            return
        log.info("%s: moved from %s to %s: %s", move.volume, move.source, move.target, move.why)
        request = MoveReplicaRequest(
            project=move.volume.meta.project,
            name=move.volume.meta.name,
            source=NodeName(move.source),
            target=NodeName(move.target),
        )
        try:
            await self._runtime.client.call(ENDPOINT, request)
        except TrivetError as error:
            log.info("pool %s is not balanced now: %s", pool.meta.name, error)
