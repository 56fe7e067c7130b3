"""The common operations on volumes: what can't be is refused before anything is promised."""

from __future__ import annotations

from dataclasses import dataclass

from trivet.contracts.errors import IN_USE, REFERENCE, FieldError, Refused
from trivet.contracts.model import GIB, ResourceId
from trivet.contracts.resource import Phase
from trivet.contracts.storage.codes import NO_SPACE, NOT_READY, SHRINK, TOO_FEW_NODES
from trivet.contracts.storage.endpoints.volumes import CRUD
from trivet.contracts.storage.pool import Pool
from trivet.contracts.storage.volume import Volume, VolumeSource
from trivet.runtime.crud import Hooks, immutable, serve_crud
from trivet.runtime.service import Service
from trivet.storage.domain.outlook import with_outlook
from trivet.storage.domain.placement import Unplaceable, Wanted, first_replicas, place
from trivet.storage.domain.pools import default_pool
from trivet.storage.domain.replication import held_for_repair
from trivet.storage.domain.snapshots import snapshots_of
from trivet.storage.domain.space import SpaceClaim
from trivet.storage.domain.volume_status import in_sync
from trivet.storage.parts import Parts

IMMUTABLE_FIELDS = ("pool", "thin", "source", "nodes")


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations on volumes."""

    async def admit(before: Volume | None, after: Volume) -> Volume:
        if before is None:
            return _admit_new(parts, after)
        immutable(before.spec, after.spec, *IMMUTABLE_FIELDS)
        if after.spec.size_gib < before.spec.size_gib:
            wrong = FieldError(
                where="spec.size_gib",
                message="can't become smaller",
                accepted=f"at least {before.spec.size_gib}",
            )
            raise Refused(SHRINK, f"volume {after.meta.name} can't shrink", errors=(wrong,))
        if after.spec.size_gib > before.spec.size_gib:
            _check_growth(parts, after)
        if after.spec.replicas > before.spec.replicas:
            _check_nodes(after, parts.pools.get(after.status.pool or after.spec.pool or ""))
        return after

    async def may_delete(volume: Volume) -> None:
        held = volume.status.attachment
        if held is not None and not held.detaching and not held_for_repair(held):
            from_whom = f"{held.holder} on {held.node}"
            raise Refused(
                IN_USE,
                f"volume {volume.meta.name} is held by {from_whom}",
                hint="stop or delete its holder first",
            )
        kept = snapshots_of(volume, parts.snapshots.list(volume.meta.project))
        if kept:
            named = ", ".join(s.meta.name for s in kept[:5])
            raise Refused(
                IN_USE,
                f"volume {volume.meta.name} has {len(kept)} snapshots: {named}",
                hint=f"delete them first: trivet snapshot delete {kept[0].meta.name}",
            )

    serve_crud(service, CRUD, Hooks[Volume](admit, ("storage",), may_delete, with_outlook))


def _admit_new(parts: Parts, volume: Volume) -> Volume:
    source = _source_of(parts, volume)
    pool = _pool_of(parts, volume, source)
    spec = volume.spec.model_copy(update={"pool": pool.meta.name})
    _check_nodes(volume, pool)
    members = parts.ledgers.members(pool)
    wanted = Wanted(
        volume=volume.meta.id,
        replicas=first_replicas(
            volume.with_status(source_snapshot=source.snapshot if source else None),
            source.nodes if source else None,
        ),
        claim=_claim(parts, volume),
        nodes=spec.nodes,
        source_nodes=source.nodes if source else None,
    )
    # A pool whose space is not known yet refuses nothing: the controller waits for it.
    found = place(wanted, members) if members else None
    if isinstance(found, Unplaceable):
        raise Refused(found.code, f"pool {pool.meta.name}: {found.reason}")
    made = volume.model_copy(update={"spec": spec})
    if source is None:
        return made
    return made.with_status(source=source.volume, source_snapshot=source.snapshot)


def _check_nodes(volume: Volume, pool: Pool | None) -> None:
    """Refuse more replicas than the pool has nodes."""
    nodes, wanted = len(pool.spec.members) if pool else 0, volume.spec.replicas
    if pool is not None and nodes < wanted:
        wrong = FieldError(
            where="spec.replicas",
            message=f"{wanted} wanted, pool {pool.meta.name} is on {nodes} nodes",
            accepted=f"at most {nodes}",
        )
        raise Refused(TOO_FEW_NODES, f"{wrong.where}: {wrong.message}", errors=(wrong,))


@dataclass(frozen=True)
class _Source:
    """What a new volume begins as, and where that lies."""

    volume: ResourceId
    snapshot: ResourceId | None
    pool: str
    nodes: frozenset[str]


def _pool_of(parts: Parts, volume: Volume, source: _Source | None) -> Pool:
    """The pool that is named, or its source's (a copy is made beside it), or the default."""
    beside = parts.pools.get(source.pool) if source else None
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


def _source_of(parts: Parts, volume: Volume) -> _Source | None:
    if volume.spec.source is None:
        return None
    if volume.spec.source.snapshot is not None:
        return _snapshot_source(parts, volume, volume.spec.source)
    name = volume.spec.source.volume or ""
    source = parts.volumes.get(name, volume.meta.project)
    if source is None or source.meta.deleting_at is not None:
        raise Refused(REFERENCE, f"spec.source: there is no volume {name}")
    if source.status.phase not in (Phase.READY, Phase.DEGRADED):
        raise Refused(NOT_READY, f"spec.source: volume {name} is {source.status.phase}")
    _check_fits(volume, name, source.spec.size_gib)
    nodes = frozenset(r.node for r in in_sync(source))
    return _Source(source.meta.id, None, source.status.pool or "", nodes)


def _snapshot_source(parts: Parts, volume: Volume, asked: VolumeSource) -> _Source:
    name = asked.snapshot or ""
    snapshot = parts.snapshots.get(name, volume.meta.project)
    if snapshot is None or snapshot.meta.deleting_at is not None:
        raise Refused(REFERENCE, f"spec.source: there is no snapshot {name}")
    if snapshot.status.phase is not Phase.READY:
        raise Refused(NOT_READY, f"spec.source: snapshot {name} is {snapshot.status.phase}")
    there = snapshot.status.parts
    found = [p for p in there if asked.volume in (None, p.name)]
    if len(found) != 1:
        known = ", ".join(p.name for p in there)
        raise Refused(
            REFERENCE,
            f"spec.source.volume: which of the volumes of snapshot {name}?",
            hint=f"there is: {known}",
        )
    (part,) = found
    _check_fits(volume, name, -(-part.size_bytes // GIB))
    nodes = frozenset(part.complete_on)
    return _Source(part.volume, snapshot.meta.id, part.pool, nodes)


def _check_fits(volume: Volume, source: str, size_gib: int) -> None:
    if size_gib > volume.spec.size_gib:
        wrong = FieldError(
            where="spec.size_gib",
            message=f"smaller than its source {source}",
            accepted=f"at least {size_gib}",
        )
        raise Refused(SHRINK, f"spec.size_gib: {wrong.message}", errors=(wrong,))


def _claim(parts: Parts, volume: Volume) -> SpaceClaim:
    return SpaceClaim(
        key=parts.volumes.key_of(volume),
        size_bytes=volume.spec.size_bytes,
        thin=volume.spec.thin,
    )


def _check_growth(parts: Parts, volume: Volume) -> None:
    """Refuse what can't be promised now; the promise itself is the controller's, so that an
    edit that is not stored in the end has taken nothing."""
    pool = parts.pools.get(volume.status.pool or "")
    if pool is None:
        return
    nodes = {replica.node for replica in volume.status.replicas}
    for member in parts.ledgers.members(pool):
        why = member.refusal(volume.meta.id, _claim(parts, volume))
        if member.node in nodes and why is not None:
            raise Refused(NO_SPACE, f"pool {pool.meta.name}: {why}")
