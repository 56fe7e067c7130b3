"""The common operations on volumes: what can't be is refused before anything is promised."""

from __future__ import annotations

from trivet.contracts.errors import IN_USE, REFERENCE, FieldError, Refused
from trivet.contracts.resource import Phase
from trivet.contracts.storage.codes import NO_SPACE, NOT_READY, SHRINK, TOO_FEW_NODES
from trivet.contracts.storage.endpoints.volumes import CRUD
from trivet.contracts.storage.pool import Pool
from trivet.contracts.storage.volume import Volume
from trivet.runtime.crud import Hooks, immutable, serve_crud
from trivet.runtime.service import Service
from trivet.storage.domain.placement import Unplaceable, Wanted, place
from trivet.storage.domain.pools import default_pool
from trivet.storage.domain.space import SpaceClaim
from trivet.storage.domain.volume_status import in_sync
from trivet.storage.parts import Parts

IMMUTABLE_FIELDS = ("replicas", "pool", "thin", "source", "nodes")


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations on volumes."""

    async def admit(before: Volume | None, after: Volume) -> Volume:
        if before is None:
            return await _admit_new(parts, after)
        immutable(before.spec, after.spec, *IMMUTABLE_FIELDS)
        if after.spec.size_gib < before.spec.size_gib:
            wrong = FieldError(
                where="spec.size_gib",
                message="can't become smaller",
                accepted=f"at least {before.spec.size_gib}",
            )
            raise Refused(SHRINK, f"volume {after.meta.name} can't shrink", errors=(wrong,))
        if after.spec.size_gib > before.spec.size_gib:
            await _check_growth(parts, after)
        return after

    async def may_delete(volume: Volume) -> None:
        held = volume.status.attachment
        if held is not None and not held.detaching:
            from_whom = f"{held.holder} on {held.node}"
            raise Refused(
                IN_USE,
                f"volume {volume.meta.name} is held by {from_whom}",
                hint="stop or delete its holder first",
            )

    serve_crud(service, CRUD, Hooks[Volume](admit, ("storage",), may_delete))


async def _admit_new(parts: Parts, volume: Volume) -> Volume:
    source = _source_of(parts, volume)
    pool = _pool_of(parts, volume, source)
    spec = volume.spec.model_copy(update={"pool": pool.meta.name})
    if len(pool.spec.members) < spec.replicas:
        raise Refused(
            TOO_FEW_NODES,
            f"spec.replicas: {spec.replicas} wanted, pool {pool.meta.name} is on "
            f"{len(pool.spec.members)} nodes",
        )
    members = await parts.ledgers.members(pool)
    wanted = Wanted(
        volume=volume.meta.id,
        replicas=spec.replicas,
        claim=_claim(parts, volume),
        nodes=spec.nodes,
        source_nodes=frozenset(r.node for r in in_sync(source)) if source else None,
    )
    # A pool whose space is not known yet refuses nothing: the controller waits for it.
    found = place(wanted, members) if members else None
    if isinstance(found, Unplaceable):
        raise Refused(found.code, f"pool {pool.meta.name}: {found.reason}")
    made = volume.model_copy(update={"spec": spec})
    return made.with_status(source=source.meta.id) if source else made


def _pool_of(parts: Parts, volume: Volume, source: Volume | None) -> Pool:
    """The pool that is named, or its source's (a copy is made beside it), or the default."""
    beside = parts.pools.get(source.status.pool or "") if source else None
    if volume.spec.pool is None and beside is not None:
        return beside
    if volume.spec.pool is None:
        pool = default_pool(parts.pools.list())
        if pool is None:
            hint = "make one: trivet pool create"
            raise Refused(REFERENCE, "spec.pool: there is no pool yet", hint=hint)
        return pool
    pool = parts.pools.get(volume.spec.pool)
    if pool is None or pool.meta.deleting_at is not None:
        known = ", ".join(p.meta.name for p in parts.pools.list()) or "none"
        raise Refused(
            REFERENCE, f"spec.pool: there is no pool {volume.spec.pool}", hint=f"there is: {known}"
        )
    return pool


def _source_of(parts: Parts, volume: Volume) -> Volume | None:
    if volume.spec.source is None:
        return None
    name = volume.spec.source.volume
    source = parts.volumes.get(name, volume.meta.project)
    if source is None or source.meta.deleting_at is not None:
        raise Refused(REFERENCE, f"spec.source: there is no volume {name}")
    if source.status.phase not in (Phase.READY, Phase.DEGRADED):
        raise Refused(NOT_READY, f"spec.source: volume {name} is {source.status.phase}")
    if source.spec.size_gib > volume.spec.size_gib:
        wrong = FieldError(
            where="spec.size_gib",
            message=f"smaller than its source {name}",
            accepted=f"at least {source.spec.size_gib}",
        )
        raise Refused(SHRINK, f"spec.size_gib: {wrong.message}", errors=(wrong,))
    return source


def _claim(parts: Parts, volume: Volume) -> SpaceClaim:
    return SpaceClaim(
        key=parts.volumes.key_of(volume),
        size_bytes=volume.spec.size_bytes,
        thin=volume.spec.thin,
    )


async def _check_growth(parts: Parts, volume: Volume) -> None:
    """Refuse what can't be promised now; the promise itself is the controller's, so that an
    edit that is not stored in the end has taken nothing."""
    pool = parts.pools.get(volume.status.pool or "")
    if pool is None:
        return
    nodes = {replica.node for replica in volume.status.replicas}
    for member in await parts.ledgers.members(pool):
        why = member.refusal(volume.meta.id, _claim(parts, volume))
        if member.node in nodes and why is not None:
            raise Refused(NO_SPACE, f"pool {pool.meta.name}: {why}")
