"""Give a VM one more network card: from now on its spec asks for it."""

from __future__ import annotations

from trivet.compute.editing import edit_spec
from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.vm_attach_nic import ENDPOINT, AttachNicRequest
from trivet.contracts.compute.vm import NicRequest, Vm, VmSpec
from trivet.contracts.errors import NAME_TAKEN, Refused
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.attach-nic`."""

    async def handle(request: AttachNicRequest, call: Call) -> Vm:
        nic = NicRequest(
            name=request.nic,
            network=request.network,
            address=request.address,
            security_groups=request.security_groups,
            qos=request.qos,
        )

        def change(spec: VmSpec) -> VmSpec:
            had = next((n for n in spec.nics if n.name and n.name == nic.name), None)
            if had == nic:
                return spec
            if had is not None:
                raise Refused(NAME_TAKEN, f"vm {request.name} has a nic {nic.name} already")
            return VmSpec.model_validate({**dict(spec), "nics": (*spec.nics, nic)})

        return await edit_spec(parts, request, change)

    service.handle(ENDPOINT, handle)
