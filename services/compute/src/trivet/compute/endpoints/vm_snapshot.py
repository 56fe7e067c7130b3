"""Take a snapshot of all disks of a VM: storage cuts their volumes at one point."""

from __future__ import annotations

from datetime import datetime

from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.vm_snapshot import ENDPOINT, VmSnapshotRequest
from trivet.contracts.endpoint import CreateRequest, GetRequest, NewMeta
from trivet.contracts.errors import INVALID, Refused
from trivet.contracts.storage.endpoints.snapshots import CRUD as SNAPSHOTS
from trivet.contracts.storage.snapshot import Snapshot, SnapshotSpec
from trivet.runtime.call import Call
from trivet.runtime.service import Service

NAME_LENGTH = 63
SETTLE_S = 45.0
VM_LABEL = "vm"


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.snapshot`."""

    async def handle(request: VmSnapshotRequest, call: Call) -> Snapshot:
        vm = await parts.vm(request.name, request.project)
        volumes = tuple(disk.volume for disk in vm.status.disks if not disk.cd)
        if not volumes:
            raise Refused(INVALID, f"VM {vm.meta.name} has no disks yet")
        client, now = parts.runtime.client, parts.runtime.clock.now()
        name = request.snapshot or snapshot_name(vm.meta.name, now)
        meta = NewMeta(name=name, project=vm.meta.project, labels={VM_LABEL: vm.meta.name})
        made = CreateRequest[SnapshotSpec](meta=meta, spec=SnapshotSpec(volumes=volumes))
        await client.call(SNAPSHOTS.create, made, request_id=call.request_id)
        asked = GetRequest(project=vm.meta.project, name=name, settle_s=SETTLE_S)
        taken: Snapshot = await client.call(SNAPSHOTS.get, asked)
        return taken

    service.handle(ENDPOINT, handle)


def snapshot_name(vm: str, now: datetime) -> str:
    """The name of a snapshot that was given none: the VM's and the time."""
    ending = now.strftime("-%Y%m%d-%H%M%S")
    return vm[: NAME_LENGTH - len(ending)].rstrip("-") + ending
