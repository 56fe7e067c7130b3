"""Pause a VM: from now on it is wanted paused."""

from __future__ import annotations

from trivet.compute.acting import set_power
from trivet.compute.domain.power import Verb
from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.vm_suspend import ENDPOINT
from trivet.contracts.compute.vm import Vm
from trivet.contracts.endpoint import Ref
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.suspend`."""

    async def handle(request: Ref, call: Call) -> Vm:
        return await set_power(parts, request, Verb.SUSPEND)

    service.handle(ENDPOINT, handle)
