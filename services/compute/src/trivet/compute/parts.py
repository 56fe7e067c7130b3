"""What bootstrap makes and the endpoints are given."""

from __future__ import annotations

from dataclasses import dataclass

from trivet.compute.node.streams import Streams
from trivet.compute.node.vm_agent import VmAgent
from trivet.contracts.compute.endpoints.node_stream_ticket import ENDPOINT as STREAM_TICKET
from trivet.contracts.compute.endpoints.node_stream_ticket import StreamKind, StreamRequest
from trivet.contracts.compute.hypervisor import Hypervisor
from trivet.contracts.compute.image import Image
from trivet.contracts.compute.node import Node
from trivet.contracts.compute.vm import Vm
from trivet.contracts.endpoint import Ref
from trivet.contracts.errors import CONFLICT, DELETING, Refused
from trivet.contracts.stream import OnBehalf, StreamTicket
from trivet.runtime.call import Call
from trivet.runtime.collection import Collection
from trivet.runtime.crud import not_found
from trivet.runtime.service import Runtime


@dataclass(frozen=True)
class Parts:
    """The compute service's own things."""

    runtime: Runtime
    vms: Collection[Vm]
    nodes: Collection[Node]
    images: Collection[Image]
    hypervisor: Hypervisor
    agent: VmAgent
    streams: Streams

    async def vm(self, name: str, project: str | None) -> Vm:
        """The VM of that name as the store has it; raises `Refused(NOT_FOUND)`."""
        found = await self.vms.fresh(self.vms.kind.key(project, name))
        if found is None:
            raise not_found(self.vms.kind, name, project)
        return found

    async def stream(
        self,
        ref: Ref,
        kind: StreamKind,
        expires_s: float,
        call: Call,
        on_behalf: OnBehalf | None = None,
    ) -> StreamTicket:
        """A ticket to a stream of that VM, from the node that runs it."""
        vm = await self.vm(ref.name, ref.project)
        if vm.status.node is None:
            raise Refused(CONFLICT, f"vm {ref.name} does not run: it has no console")
        return await self.runtime.client.call(
            STREAM_TICKET,
            StreamRequest(id=vm.meta.id, kind=kind, expires_s=expires_s, on_behalf=on_behalf),
            node=vm.status.node,
            request_id=call.request_id,
        )


def not_deleting(vm: Vm) -> None:
    """Raises `Refused(DELETING)` where the VM is being deleted."""
    if vm.meta.deleting_at is not None:
        raise Refused(DELETING, f"vm {vm.meta.name} is being deleted")
