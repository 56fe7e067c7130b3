"""Take a disk back into use."""

from __future__ import annotations

from trivet.contracts.endpoint import Ref
from trivet.contracts.storage.disk import DISK, Disk, DiskHealth
from trivet.contracts.storage.endpoints.disk_readmit import ENDPOINT
from trivet.runtime.call import Call
from trivet.runtime.crud import not_found
from trivet.runtime.service import Service
from trivet.storage.domain.disks import isolated, judged
from trivet.storage.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer `disk.readmit`."""

    async def readmit(request: Ref, call: Call) -> Disk:
        key, now = DISK.key(None, request.name), parts.runtime.clock.now()

        def back(disk: Disk) -> Disk:
            again = judged(isolated(disk, wish=False), DiskHealth.OK, "", now)
            return again.with_status(rotten_blocks=0)

        disk = await parts.disks.mutate(key, back)
        if disk is None:
            raise not_found(DISK, request.name, None)
        return disk

    service.handle(ENDPOINT, readmit)
