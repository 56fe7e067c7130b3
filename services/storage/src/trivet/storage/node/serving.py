"""Serving a replica of this node, under the epoch that the store has and no other.

A server in an epoch shuts out all older ones. So whoever asks for one that is over (it woke from
a long pause, or a message was slow) must not get it, even where this node's own record beside
the replica has not heard of the newer one yet: the store is asked first. Nor is another file
served than the one that the store speaks of: a disk that was away may bring back an older one.
"""

from __future__ import annotations

from trivet.contracts.errors import CONFLICT, Refused, Retry
from trivet.contracts.model import ResourceId
from trivet.contracts.storage.codes import NOT_READY
from trivet.contracts.storage.engine import ServedReplica, VolumeEngine
from trivet.contracts.storage.volume import ReplicaState, Volume
from trivet.runtime.collection import Collection
from trivet.storage.domain.volume_status import replica_on


class Serving:
    """Starts the servers of this node's replicas."""

    def __init__(
        self, volumes: Collection[Volume], engine: VolumeEngine, node: str, address: str
    ) -> None:
        self._volumes = volumes
        self._engine = engine
        self._node = node
        self._address = address

    async def serve(
        self, volume: ResourceId, epoch: int, *, remote: bool = False, fresh: bool = False
    ) -> ServedReplica:
        """Serve a replica in `epoch`, to other nodes too if `remote`, by a new server if `fresh`.
        Raises `Refused(CONFLICT)` where the volume is not held in that epoch, by what the store
        says now."""
        known = self._volumes.by_id(volume)
        if known is None:
            detail = f"volume {volume} is not known here yet"
            raise Retry(NOT_READY, detail, retry_after_s=0.5)
        now = await self._volumes.fresh(self._volumes.key_of(known))
        held = now.status.attachment if now is not None and now.meta.id == volume else None
        if held is None or held.epoch != epoch or held.detaching:
            there = f"epoch {held.epoch}" if held else "no epoch"
            raise Refused(CONFLICT, f"volume {volume} is held in {there}, not in {epoch}")
        await self._check_disk(now)
        address = self._address if remote else None
        served = await self._engine.serve(volume, epoch, address=address, fresh=fresh)
        return served.model_copy(update={"node": self._node})

    async def _check_disk(self, volume: Volume | None) -> None:
        replica = replica_on(volume, self._node) if volume is not None else None
        if volume is None or replica is None or replica.state is ReplicaState.CREATING:
            return
        for record in await self._engine.replicas(volume.meta.id):
            lies_on = record.disk or volume.status.pool
            if lies_on != replica.disk:
                detail = f"the replica of {volume.meta.name} on {self._node} lies on {replica.disk}"
                raise Retry(NOT_READY, f"{detail}, not on {lies_on}", retry_after_s=2.0)
