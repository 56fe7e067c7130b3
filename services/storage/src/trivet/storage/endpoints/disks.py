"""The common operations on disks: a role goes only to a disk that was proven blank."""

from __future__ import annotations

from trivet.contracts.storage.disk import Disk
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
        return after

    serve_crud(service, CRUD, Hooks[Disk](admit=admit))
