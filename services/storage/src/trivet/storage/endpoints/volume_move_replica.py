"""Move a replica: space is claimed on the target and a replica recorded there, the source's is
marked as wanted elsewhere; the leader and the nodes do the rest."""

from __future__ import annotations

from functools import partial

from trivet.contracts.errors import CONFLICT, REFERENCE, Refused
from trivet.contracts.storage.codes import NOT_READY
from trivet.contracts.storage.endpoints.volume_move_replica import ENDPOINT, MoveReplicaRequest
from trivet.contracts.storage.pool import Pool
from trivet.contracts.storage.volume import VOLUME, Volume
from trivet.runtime.call import Call
from trivet.runtime.crud import not_found
from trivet.runtime.service import Service
from trivet.storage.domain.moves import check_move, moving
from trivet.storage.domain.placement import Spot, Unplaceable, claim_at, place, wanted_beside
from trivet.storage.domain.volume_status import replica_on
from trivet.storage.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer `volume.move-replica`."""

    async def move(request: MoveReplicaRequest, call: Call) -> Volume:
        key = VOLUME.key(request.project, request.name)
        volume = await parts.volumes.fresh(key)
        if volume is None:
            raise not_found(VOLUME, request.name, request.project)
        if check_move(volume, request.source, request.target):
            return volume
        pool = parts.pools.get(volume.status.pool or "")
        if pool is None:
            raise Refused(REFERENCE, f"there is no pool {volume.status.pool}")
        spot = await _claimed(parts, volume, pool, request.target)
        why = f"moved to {request.target}"
        make = partial(
            moving,
            source=request.source,
            target=request.target,
            disk=spot.disk or pool.meta.name,
            why=why,
            now=parts.runtime.clock.now(),
        )
        moved = await parts.volumes.mutate(key, lambda v: make(v) if _same(v, volume) else v)
        if moved is None or not _same(moved, volume) or replica_on(moved, request.target) is None:
            await parts.ledgers.release(pool.meta.id, request.target, volume.meta.id)
            raise Refused(CONFLICT, f"volume {request.name} was changed meanwhile")
        return moved

    service.handle(ENDPOINT, move)


def _same(one: Volume, other: Volume) -> bool:
    return one.meta.id == other.meta.id and one.meta.deleting_at is None


async def _claimed(parts: Parts, volume: Volume, pool: Pool, target: str) -> Spot:
    """The place on the target, with its space promised. Raises `Refused`."""
    members = [m for m in parts.ledgers.members(pool) if m.node == target]
    if not members:
        raise Refused(REFERENCE, f"pool {pool.meta.name} is not on {target}, or not open there")
    wanted = wanted_beside(volume, parts.volumes.key_of(volume), {})
    found = place(wanted, members)
    if isinstance(found, Unplaceable):
        raise Refused(found.code, f"pool {pool.meta.name}: {found.reason}")
    (spot,) = found.spots
    claim = claim_at(wanted.claim, spot)
    refused = await parts.ledgers.claim(pool, target, volume.meta.id, claim)
    if refused is not None:
        raise Refused(NOT_READY, f"pool {pool.meta.name}: {refused}")
    return spot
