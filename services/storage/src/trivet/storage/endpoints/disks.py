"""The common operations on disks: a role goes only to a disk that was proven blank."""

from __future__ import annotations

from trivet.contracts.errors import Refused
from trivet.contracts.storage.codes import DISK_TAKEN
from trivet.contracts.storage.disk import Disk, DiskRole
from trivet.contracts.storage.endpoints.disks import CRUD
from trivet.runtime.crud import Hooks, serve_crud
from trivet.runtime.service import Service
from trivet.storage.domain.disks import check_role
from trivet.storage.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations on disks."""

    async def admit(before: Disk | None, after: Disk) -> Disk:
        if before is not None:
            check_role(before, after.spec.role)
            if after.spec.role is DiskRole.NONE:
                await _check_free(parts, after)
        return after

    serve_crud(service, CRUD, Hooks[Disk](admit=admit))


async def _check_free(parts: Parts, disk: Disk) -> None:
    owner = await parts.disk_claims.owner(disk.meta.name)
    if owner is None:
        return
    pool = parts.pools.by_id(owner)
    whose = f"pool {pool.meta.name}" if pool else str(owner)
    raise Refused(DISK_TAKEN, f"disk {disk.meta.name} belongs to {whose}", hint="delete it first")
