"""The volumes and ports that a VM is made of, as requests to their owners.

Names are the VM's with the disk's name or the card's number, so that a repeated request meets
its own earlier one, and whatever happens in between, nothing is made twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trivet.contracts.compute.image import Image
from trivet.contracts.compute.vm import Vm, VmDisk, VmNic, VmSpec
from trivet.contracts.endpoint import CreateRequest, NewMeta
from trivet.contracts.errors import INVALID, FieldError, Refused
from trivet.contracts.model import Name
from trivet.contracts.network.port import PortSpec
from trivet.contracts.resource import OwnerRef
from trivet.contracts.storage.volume import CloneMode, VolumeSource, VolumeSpec

NAME_LENGTH = 63


@dataclass(frozen=True)
class Part:
    """A volume or port of a VM as its owner answered: ready, refused for good, or neither yet;
    `message` says why."""

    kind: str
    name: str
    ready: bool
    refused: bool = False
    message: str = ""
    mac: str | None = None
    addresses: tuple[str, ...] = ()


def owner_of(vm: Vm) -> OwnerRef:
    """The VM as the owner of its parts."""
    return OwnerRef(kind="vm", id=vm.meta.id, project=vm.meta.project, name=vm.meta.name)


def holder_of(vm: Vm) -> str:
    """The VM as the holder of its attached volumes."""
    return f"vm/{vm.meta.id}"


def volume_name(vm: str, disk: str) -> Name:
    """The name of the volume behind a disk."""
    return f"{vm}-{disk}"


def port_name(vm: str, number: int) -> Name:
    """The name of the port behind a card."""
    return f"{vm}-{number}"


def check_names(vm: str, spec: VmSpec) -> None:
    """Raises `Refused(INVALID)` where the names of its parts would be too long."""
    errors = tuple(
        FieldError(
            where=f"spec.disks.{i}.name",
            message=f"{volume_name(vm, disk.name)} would be the volume's name",
            accepted=f"the VM's and the disk's names have {NAME_LENGTH - 1} characters together",
        )
        for i, disk in enumerate(spec.disks)
        if len(volume_name(vm, disk.name)) > NAME_LENGTH
    )
    if spec.nics and len(port_name(vm, len(spec.nics) - 1)) > NAME_LENGTH:
        accepted = f"at most {NAME_LENGTH - 2} characters for a VM with cards"
        errors += (FieldError(where="meta.name", message="too long", accepted=accepted),)
    if errors:
        raise Refused(INVALID, "the names of its volumes or ports would be too long", errors=errors)


def volume_requests(vm: Vm, image: Image | None) -> tuple[CreateRequest[VolumeSpec], ...]:
    """The volumes of a VM, in the order of its disks; the first begins as its image."""
    requests = []
    for i, disk in enumerate(vm.spec.disks):
        source = None
        if i == 0 and image is not None and image.status.volume is not None:
            source = VolumeSource(volume=image.status.volume, mode=CloneMode(vm.spec.clone))
        spec = VolumeSpec(
            size_gib=disk.size_gib,
            replicas=disk.replicas,
            pool=disk.pool,
            thin=disk.thin,
            source=source,
        )
        meta = NewMeta(name=volume_name(vm.meta.name, disk.name), project=vm.meta.project)
        requests.append(CreateRequest[VolumeSpec](meta=meta, spec=spec, owner=owner_of(vm)))
    return tuple(requests)


def port_requests(vm: Vm, node: str) -> tuple[CreateRequest[PortSpec], ...]:
    """The ports of a VM on `node`, in the order of its cards."""
    return tuple(
        CreateRequest[PortSpec](
            meta=NewMeta(name=port_name(vm.meta.name, i), project=vm.meta.project),
            spec=PortSpec(
                network=nic.network,
                addresses=(nic.address,) if nic.address else (),
                security_groups=nic.security_groups,
                hostname=vm.meta.name,
                node=node,
            ),
            owner=owner_of(vm),
        )
        for i, nic in enumerate(vm.spec.nics)
    )


def disks_of(vm: Vm) -> tuple[VmDisk, ...]:
    """The disks of a VM as its status shows them, with what is known of them kept."""
    known = {d.name: d for d in vm.status.disks}
    return tuple(
        known.get(d.name) or VmDisk(name=d.name, volume=volume_name(vm.meta.name, d.name))
        for d in vm.spec.disks
    )


def nics_of(vm: Vm, parts: Mapping[str, Part]) -> tuple[VmNic, ...]:
    """The cards of a VM as its status shows them; `parts` are its ports by name."""
    nics = []
    for i, nic in enumerate(vm.spec.nics):
        name = port_name(vm.meta.name, i)
        part = parts.get(name)
        nics.append(
            VmNic(
                port=name,
                network=nic.network,
                mac=part.mac if part else None,
                addresses=part.addresses if part else (),
            )
        )
    return tuple(nics)
