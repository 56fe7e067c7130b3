"""Take a network card from a VM: from now on its spec does not ask for it."""

from __future__ import annotations

from trivet.compute.editing import edit_spec
from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.vm_detach_nic import ENDPOINT, DetachNicRequest
from trivet.contracts.compute.vm import Vm, VmSpec
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.detach-nic`."""

    async def handle(request: DetachNicRequest, call: Call) -> Vm:
        def change(spec: VmSpec) -> VmSpec:
            left = tuple(n for n in spec.nics if n.name != request.nic)
            return spec.model_copy(update={"nics": left})

        return await edit_spec(parts, request, change)

    service.handle(ENDPOINT, handle)
