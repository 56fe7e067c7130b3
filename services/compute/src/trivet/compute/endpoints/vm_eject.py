"""Take the CD-ROM out of a VM's drive: from now on its spec asks for none."""

from __future__ import annotations

from trivet.compute.editing import edit_spec
from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.vm_eject import ENDPOINT
from trivet.contracts.compute.vm import Vm
from trivet.contracts.endpoint import Ref
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.eject`."""

    async def handle(request: Ref, call: Call) -> Vm:
        return await edit_spec(parts, request, lambda s: s.model_copy(update={"iso": None}))

    service.handle(ENDPOINT, handle)
