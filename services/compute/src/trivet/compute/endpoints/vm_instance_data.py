"""Tells what a guest may know of its own VM."""

from __future__ import annotations

from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.vm_instance_data import (
    ENDPOINT,
    InstanceData,
    InstanceDataRequest,
)
from trivet.contracts.compute.vm import VM
from trivet.runtime.call import Call
from trivet.runtime.crud import not_found
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `vm.instance-data`."""

    async def handle(request: InstanceDataRequest, call: Call) -> InstanceData:
        vm = parts.vms.get(request.name, request.project)
        if vm is None or vm.meta.id != request.id:
            raise not_found(VM, request.name, request.project)
        return InstanceData(
            id=vm.meta.id,
            name=vm.meta.name,
            project=vm.meta.project or "",
            labels=vm.meta.labels,
            node=vm.status.node,
            user_data=vm.spec.user_data,
            ssh_keys=vm.spec.ssh_keys,
        )

    service.handle(ENDPOINT, handle)
