"""The common operations on pools."""

from __future__ import annotations

from trivet.contracts.errors import (
    IMMUTABLE,
    IN_USE,
    INVALID,
    NAME_TAKEN,
    REFERENCE,
    FieldError,
    Refused,
)
from trivet.contracts.storage.codes import SHRINK
from trivet.contracts.storage.disk import DiskRole
from trivet.contracts.storage.endpoints.pools import CRUD
from trivet.contracts.storage.pool import Pool, PoolMember
from trivet.runtime.crud import Hooks, immutable, serve_crud
from trivet.runtime.service import Service
from trivet.storage.domain.pools import in_pool
from trivet.storage.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations on pools."""

    async def admit(before: Pool | None, after: Pool) -> Pool:
        if before is not None:
            immutable(before.spec, after.spec, "engine")
            _check_growth(parts, before, after)
        nodes = [m.node for m in after.spec.members]
        if len(set(nodes)) != len(nodes):
            raise Refused(INVALID, "spec.members: the same node twice")
        for number, member in enumerate(after.spec.members):
            _check_member(parts, number, member)
        if before is None and parts.pools.get(after.meta.name) is not None:
            # Before anything is claimed for it.
            raise Refused(NAME_TAKEN, f"there is a pool {after.meta.name} already")
        await parts.disk_claims.claim(after)
        return after

    async def may_delete(pool: Pool) -> None:
        volumes = in_pool(parts.volumes.list(), pool.meta.name)
        if volumes:
            named = ", ".join(v.meta.name for v in volumes[:5])
            raise Refused(
                IN_USE,
                f"pool {pool.meta.name} has {len(volumes)} volumes: {named}",
                hint="delete its volumes first",
            )
        name, every = pool.meta.name, parts.snapshots.list()
        kept = [s.meta.name for s in every if name in {p.pool for p in s.status.parts}]
        if kept:
            named = ", ".join(kept[:5])
            raise Refused(
                IN_USE,
                f"pool {pool.meta.name} has {len(kept)} snapshots: {named}",
                hint="delete its snapshots first",
            )

    serve_crud(service, CRUD, Hooks[Pool](admit, ("storage",), may_delete))


def _check_growth(parts: Parts, before: Pool, after: Pool) -> None:
    """A pool gets more members, disks and larger files. What it has can be taken away from it
    once nothing lies there (`trivet node maintenance`, `trivet disk isolate` move it away)."""
    now = {m.node: m for m in after.spec.members}
    for had in before.spec.members:
        has = now.get(had.node)
        where = f"spec.members of {had.node}"
        if has is None:
            _check_empty(parts, before, where, had.node, "")
            continue
        for disk in sorted(set(had.disks) - set(has.disks)):
            _check_empty(parts, before, where, had.node, disk)
        if has.path != had.path or (had.file_gib is None) != (has.file_gib is None):
            raise Refused(IMMUTABLE, f"{where}: what it is made of can't change")
        if (has.file_gib or 0) < (had.file_gib or 0):
            wrong = FieldError(
                where=f"{where}: file_gib",
                message="can't become smaller",
                accepted=f"at least {had.file_gib}",
            )
            raise Refused(SHRINK, f"pool {after.meta.name} can't shrink", errors=(wrong,))


def _check_empty(parts: Parts, pool: Pool, where: str, node: str, disk: str) -> None:
    """Refuse to take away what something lies on (`disk` '': all of the member)."""
    name = pool.meta.name
    on_it = [
        f"volume {volume.meta.name}"
        for volume in in_pool(parts.volumes.list(), name)
        for replica in volume.status.replicas
        if replica.node == node and disk in ("", replica.disk)
    ]
    # A snapshot does not say on which disk it lies.
    kept = [
        f"snapshot {s.meta.name}"
        for s in parts.snapshots.list()
        if any(p.pool == name and node in p.nodes for p in s.status.parts)
    ]
    if on_it or kept:
        what = f"disk {disk}" if disk else "the node's part"
        away = f"disk isolate {disk}" if disk else f"node maintenance {node} on --move"
        raise Refused(
            IMMUTABLE,
            f"{where}: {what} can't be taken away: {', '.join([*on_it, *kept][:5])} lie there",
            hint=f"move that away first: trivet {away}",
        )


def _check_member(parts: Parts, number: int, member: PoolMember) -> None:
    where = f"spec.members.{number}"
    kinds = [bool(member.disks), member.file_gib is not None, member.path is not None]
    if sum(kinds) != 1:
        wrong = FieldError(where=where, message="exactly one of disks, file_gib, path")
        raise Refused(INVALID, f"{where}: {wrong.message}", errors=(wrong,))
    for name in member.disks:
        disk = parts.disks.get(name)
        if disk is None or disk.status.node != member.node:
            raise Refused(REFERENCE, f"{where}: {member.node} has no disk {name}")
        if disk.spec.role is not DiskRole.DATA:
            hint = f"trivet disk edit {name} --role data"
            raise Refused(INVALID, f"{where}: disk {name} has no role `data`", hint=hint)
