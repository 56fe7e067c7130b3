"""Take a disk from a VM: from now on its spec does not ask for it."""

from __future__ import annotations

from trivet.compute.domain.vm_parts import volume_name
from trivet.compute.editing import edit_spec
from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.vm_detach_disk import ENDPOINT, DetachDiskRequest
from trivet.contracts.compute.vm import Vm, VmSpec
from trivet.contracts.errors import INVALID, Refused
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.detach-disk`."""

    async def handle(request: DetachDiskRequest, call: Call) -> Vm:
        def change(spec: VmSpec) -> VmSpec:
            left = tuple(d for d in spec.disks if d.name != request.disk)
            if left != spec.disks and not request.delete:
                volume = volume_name(request.name, request.disk)
                detail = f"volume {volume} is deleted with its disk"
                raise Refused(INVALID, detail, hint="say `delete` (--delete) if it may go")
            return spec.model_copy(update={"disks": left})

        return await edit_spec(parts, request, change)

    service.handle(ENDPOINT, handle)
