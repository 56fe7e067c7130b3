"""Let a paused VM run on."""

from __future__ import annotations

from trivet.compute.acting import set_power
from trivet.compute.domain.power import Verb
from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.vm_resume import ENDPOINT
from trivet.contracts.compute.vm import Vm
from trivet.contracts.endpoint import Ref
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.resume`."""

    async def handle(request: Ref, call: Call) -> Vm:
        return await set_power(parts, request, Verb.RESUME)

    service.handle(ENDPOINT, handle)
