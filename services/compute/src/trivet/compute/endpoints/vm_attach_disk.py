"""Give a VM one more disk: from now on its spec asks for it."""

from __future__ import annotations

from trivet.compute.editing import edit_spec
from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.vm_attach_disk import ENDPOINT, AttachDiskRequest
from trivet.contracts.compute.vm import DiskRequest, Vm, VmSpec
from trivet.contracts.errors import NAME_TAKEN, Refused
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.attach-disk`."""

    async def handle(request: AttachDiskRequest, call: Call) -> Vm:
        disk = DiskRequest(
            name=request.disk,
            size_gib=request.size_gib,
            replicas=request.replicas,
            pool=request.pool,
            thin=request.thin,
        )

        def change(spec: VmSpec) -> VmSpec:
            had = next((d for d in spec.disks if d.name == disk.name), None)
            if had == disk:
                return spec
            if had is not None:
                raise Refused(NAME_TAKEN, f"vm {request.name} has a disk {disk.name} already")
            return VmSpec.model_validate({**dict(spec), "disks": (*spec.disks, disk)})

        return await edit_spec(parts, request, change)

    service.handle(ENDPOINT, handle)
