"""Isolate a disk: the wish is recorded, the leader moves away what lies there."""

from __future__ import annotations

from trivet.contracts.endpoint import Ref
from trivet.contracts.storage.disk import DISK, Disk
from trivet.contracts.storage.endpoints.disk_isolate import ENDPOINT
from trivet.runtime.call import Call
from trivet.runtime.crud import not_found
from trivet.runtime.service import Service
from trivet.storage.domain.disks import isolated
from trivet.storage.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer `disk.isolate`."""

    async def isolate(request: Ref, call: Call) -> Disk:
        key = DISK.key(None, request.name)
        disk = await parts.disks.mutate(key, lambda d: isolated(d, wish=True))
        if disk is None:
            raise not_found(DISK, request.name, None)
        return disk

    service.handle(ENDPOINT, isolate)
