"""Make a VM like another one: a new VM that names it as its origin, created as any other is."""

from __future__ import annotations

from trivet.compute.domain.cloning import clone_of
from trivet.compute.parts import Parts, not_deleting
from trivet.contracts.compute.endpoints.vm_clone import ENDPOINT, CloneRequest
from trivet.contracts.compute.endpoints.vms import CRUD
from trivet.contracts.compute.vm import Vm, VmSpec
from trivet.contracts.endpoint import CreateRequest, NewMeta
from trivet.contracts.errors import INVALID, Refused
from trivet.runtime.call import Call
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.clone`."""

    async def handle(request: CloneRequest, call: Call) -> Vm:
        vm = await parts.vm(request.name, request.project)
        not_deleting(vm)
        if {d.name for d in vm.spec.disks} - {d.name for d in vm.status.disks}:
            raise Refused(INVALID, f"VM {vm.meta.name} does not have all of its disks yet")
        meta = NewMeta(name=request.new, project=vm.meta.project, labels=dict(vm.meta.labels))
        spec = clone_of(vm, request.mode, request.power)
        asked = CreateRequest[VmSpec](meta=meta, spec=spec)
        made: Vm = await parts.runtime.client.call(CRUD.create, asked, request_id=call.request_id)
        return made

    service.handle(ENDPOINT, handle)
