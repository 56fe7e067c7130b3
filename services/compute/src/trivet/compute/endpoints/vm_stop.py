"""Stop a VM: from now on it is wanted stopped, and by when is on record."""

from __future__ import annotations

from datetime import timedelta

from trivet.compute.acting import set_power
from trivet.compute.domain.power import Verb
from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.vm_stop import ENDPOINT, StopRequest
from trivet.contracts.compute.vm import Power, Vm
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.stop`."""

    async def handle(request: StopRequest, call: Call) -> Vm:
        grace_s = 0 if request.force else request.grace_s
        by = parts.runtime.clock.now() + timedelta(seconds=grace_s)

        def hurry(vm: Vm) -> Vm:
            if vm.status.power is Power.STOPPED and vm.status.runs_with is None:
                return vm
            # A later request may bring the end nearer, never put it off. A forced one is for now,
            # whatever the clock said when the one before was made.
            due = by if request.force else min(vm.status.stop_by or by, by)
            return vm.with_status(stop_by=due)

        return await set_power(parts, request, Verb.STOP, hurry)

    service.handle(ENDPOINT, handle)
