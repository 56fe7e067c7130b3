"""Reset a VM: a single act of its node's agent, for it can't be a desired state."""

from __future__ import annotations

from trivet.compute.parts import Parts, not_deleting
from trivet.contracts.compute.endpoints.node_vm_act import ENDPOINT as ACT
from trivet.contracts.compute.endpoints.node_vm_act import ActRequest
from trivet.contracts.compute.endpoints.vm_reset import ENDPOINT
from trivet.contracts.compute.hypervisor import Act
from trivet.contracts.compute.vm import Power, Vm
from trivet.contracts.endpoint import Ref
from trivet.contracts.errors import INVALID, Refused
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.reset`."""

    async def handle(request: Ref, call: Call) -> Vm:
        vm = await parts.vm(request.name, request.project)
        not_deleting(vm)
        if vm.status.node is None or vm.status.power is not Power.RUNNING:
            raise Refused(INVALID, f"vm {request.name} is {vm.status.power}", hint="start it first")
        await parts.runtime.client.call(
            ACT,
            ActRequest(id=vm.meta.id, act=Act.RESET),
            node=vm.status.node,
            caller=call.caller,
            request_id=call.request_id,
        )
        return await parts.vm(request.name, request.project)

    service.handle(ENDPOINT, handle)
