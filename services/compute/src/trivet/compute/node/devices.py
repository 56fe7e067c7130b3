"""The disks and cards of this node's VMs: attached and looked at where they are owned.

A disk is attached here by the storage service under a new epoch, a card's port is plugged here
by the network service; what they answer is what the hypervisor is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TypeVar

from trivet.compute.domain import actions as do
from trivet.compute.domain.capacity import asked_by, covers
from trivet.compute.domain.hardware import disks_to_have, lacking, nics_to_have
from trivet.compute.domain.vm_parts import holder_of
from trivet.contracts.compute.hypervisor import DomainDisk, DomainNic
from trivet.contracts.compute.node import Node
from trivet.contracts.compute.vm import Power, Vm, VmDisk, VmNic
from trivet.contracts.endpoint import GetRequest
from trivet.contracts.errors import NOT_FOUND, UNAVAILABLE, Refused, Retry, TrivetError
from trivet.contracts.model import GIB, NodeName
from trivet.contracts.network.endpoints.ports import CRUD as PORTS
from trivet.contracts.network.port import Port
from trivet.contracts.resource import Phase
from trivet.contracts.storage.endpoints.volume_attach import ENDPOINT as ATTACH
from trivet.contracts.storage.endpoints.volume_attach import AttachRequest
from trivet.contracts.storage.endpoints.volume_detach import ENDPOINT as DETACH
from trivet.contracts.storage.endpoints.volume_detach import DetachRequest
from trivet.contracts.storage.volume import Attachment
from trivet.runtime.collection import Collection
from trivet.runtime.service import Runtime

Given = TypeVar("Given")
Shown = TypeVar("Shown")

SERIAL_LENGTH = 20
SOON_S = 1.0
PORT_S = 3.0
"""How long is waited for a port that this node is still making."""


class Devices:
    """Disks and cards for VMs on this node."""

    def __init__(self, runtime: Runtime, nodes: Collection[Node]) -> None:
        self._runtime = runtime
        self._nodes = nodes

    @property
    def node(self) -> Node | None:
        """This node, as the copy has it."""
        return self._nodes.get(self._runtime.node)

    async def prepare(self, vm: Vm) -> do.Preparation:
        """All that `vm` starts or goes on with, or what is missing of it. A guest whose disk
        failed also needs space to write to: it would only be stopped again."""
        disks, nics = disks_to_have(vm), nics_to_have(vm)
        full: list[str] = []
        found = await asyncio.gather(
            *(_or_why(self.disk(vm, disk, order + 1, full)) for order, disk in enumerate(disks)),
            *(_or_why(self.nic(vm, nic)) for nic in nics),
        )
        missing = [answer for answer in found if isinstance(answer, str)]
        missing += [f"{what} is not made yet" for what in lacking(vm)]
        missing += await self.unpromised(vm)
        if missing or (full and vm.status.power is Power.PAUSED):
            return do.Preparation(missing=(*missing, *full), pool_full=bool(full))
        pairs = [answer for answer in found if not isinstance(answer, str)]
        return do.Preparation(
            disks=tuple(d for d, _ in pairs if isinstance(d, DomainDisk)),
            nics=tuple(n for n, _ in pairs if isinstance(n, DomainNic)),
            vm_disks=tuple(d for _, d in pairs if isinstance(d, VmDisk)),
            vm_nics=tuple(n for _, n in pairs if isinstance(n, VmNic)),
        )

    async def disk(
        self, vm: Vm, disk: VmDisk, boot_order: int | None = None, full: list[str] | None = None
    ) -> tuple[DomainDisk, VmDisk]:
        """Attach a disk here: for the hypervisor, and as the status tells it; why there is no
        space to write to it is added to `full`. Raises `TrivetError`."""
        attachment = await self._attachment(vm, disk)
        if attachment.socket is None or attachment.export is None:
            raise Retry(UNAVAILABLE, f"disk {disk.name}: its attachment has no socket yet")
        if attachment.starved and full is not None:
            full.append(f"disk {disk.name}: {attachment.starved}")
        given = DomainDisk(
            name=disk.name,
            socket=attachment.socket,
            export=attachment.export,
            serial=disk.name[:SERIAL_LENGTH],
            boot_order=boot_order,
            cd=disk.cd,
        )
        # What is served now is what the guest sees: it may still be about to grow.
        has_gib = attachment.size_bytes // GIB or disk.size_gib
        shown = {"attached": True, "epoch": attachment.epoch, "guest_gib": has_gib}
        return given, disk.model_copy(update=shown)

    async def served_bytes(self, vm: Vm, disk: VmDisk) -> int:
        """The size with which an attached disk is served here now. Raises `TrivetError`."""
        return (await self._attachment(vm, disk)).size_bytes

    async def _attachment(self, vm: Vm, disk: VmDisk) -> Attachment:
        """The disk's attachment here, made or as it is."""
        request = AttachRequest(
            project=vm.meta.project,
            name=disk.volume,
            holder=holder_of(vm),
            node=NodeName(self._runtime.node),
            # A guest that runs keeps what it has, whatever is on record of its runs.
            run=vm.status.epoch + 1 if vm.status.runs_with is None else None,
        )
        try:
            attachment: Attachment = await self._runtime.client.call(ATTACH, request)
        except TrivetError as error:
            raise _about(f"disk {disk.name}", error) from error
        return attachment

    async def nic(self, vm: Vm, nic: VmNic) -> tuple[DomainNic, VmNic]:
        """A card whose port is plugged here and protected, once it is. Raises `TrivetError`."""
        request = GetRequest(project=vm.meta.project, name=nic.port, settle_s=PORT_S)
        try:
            port: Port = await self._runtime.client.call(PORTS.get, request)
        except TrivetError as error:
            raise _about(f"port {nic.port}", error) from error
        status = port.status
        if status.phase is not Phase.READY or status.node != self._runtime.node:
            said = [c.message for c in status.conditions if c.status != "true" and c.message]
            why = said[0] if said else f"is {status.phase}"
            raise Retry(UNAVAILABLE, f"port {nic.port}: {why}", retry_after_s=SOON_S)
        if status.device is None or status.mac is None:
            detail = f"port {nic.port}: has no device yet"
            raise Retry(UNAVAILABLE, detail, retry_after_s=SOON_S)
        given = DomainNic(device=status.device, mac=status.mac, mtu=status.mtu or 1450)
        shown = {"plugged": True, "mac": status.mac, "addresses": status.addresses}
        return given, nic.model_copy(update=shown)

    async def _copy_of(self, key: str) -> Node | None:
        return self._nodes.by_key(key)

    async def unpromised(self, vm: Vm) -> list[str]:
        """Why the node may not give the VM what is asked: it has not promised it."""
        need = asked_by(vm.spec)
        key = self._nodes.kind.key(None, self._runtime.node)
        for look in (self._copy_of, self._nodes.fresh):
            node = await look(key)
            if node is not None and covers(node.status.promises.get(vm.meta.id), need):
                return []
        told = vm.status.condition("Scheduled")
        why = f": {told.message}" if told and told.status == "false" else " yet"
        return [f"{need.memory_mib} MiB, {need.vcpus} vcpus are not promised{why}"]

    async def detach(self, vm: Vm, disks: Iterable[VmDisk]) -> None:
        """Let go of disks; what is gone is let go of."""
        await asyncio.gather(*(self._detach_one(vm, disk) for disk in disks))

    async def _detach_one(self, vm: Vm, disk: VmDisk) -> None:
        request = DetachRequest(project=vm.meta.project, name=disk.volume, holder=holder_of(vm))
        try:
            await self._runtime.client.call(DETACH, request)
        except Refused as error:
            if error.code is not NOT_FOUND:
                raise


async def _or_why(
    asked: Coroutine[None, None, tuple[Given, Shown]],
) -> tuple[Given, Shown] | str:
    try:
        return await asked
    except TrivetError as error:
        return error.detail


def _about(what: str, error: TrivetError) -> TrivetError:
    """The same error, saying what it is about."""
    return type(error)(
        error.code,
        f"{what}: {error.detail}",
        hint=error.hint,
        errors=error.errors,
        retry_after_s=error.retry_after_s,
    )
