"""Start a VM: from now on it is wanted running."""

from __future__ import annotations

from trivet.compute.acting import set_power
from trivet.compute.domain.power import Verb
from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.vm_start import ENDPOINT
from trivet.contracts.compute.vm import Vm
from trivet.contracts.endpoint import Ref
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.start`."""

    async def handle(request: Ref, call: Call) -> Vm:
        return await set_power(parts, request, Verb.START)

    service.handle(ENDPOINT, handle)
