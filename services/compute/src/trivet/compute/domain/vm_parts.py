"""The volumes and ports that a VM is made of, as requests to their owners.

Names are the VM's with the disk's name or the card's number, so that a repeated request meets
its own earlier one, and whatever happens in between, nothing is made twice.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from trivet.compute.domain.hardware import (
    card_names,
    card_of,
    disks_asked,
    disks_to_have,
    nics_to_have,
)
from trivet.contracts.compute.image import Image
from trivet.contracts.compute.vm import DiskRequest, NicRequest, Vm, VmDisk, VmNic, VmSpec
from trivet.contracts.endpoint import CreateRequest, NewMeta
from trivet.contracts.errors import INVALID, FieldError, Refused
from trivet.contracts.model import GIB, Model, Name
from trivet.contracts.network.port import PortSpec
from trivet.contracts.resource import OwnerRef, Phase
from trivet.contracts.storage.snapshot import SnapshotSpec
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


def port_name(vm: str, card: str) -> Name:
    """The name of the port behind a card."""
    return f"{vm}-{card}"


def check_names(vm: str, spec: VmSpec) -> None:
    """Raises `Refused(INVALID)` where the names of its parts would be too long."""
    errors = tuple(
        FieldError(
            where=f"spec.disks.{i}.name",
            message=f"{volume_name(vm, disk.name)} would be the volume's name",
            accepted=f"the VM's and the disk's names have {NAME_LENGTH - 1} characters together",
        )
        for i, disk in enumerate(disks_asked(spec))
        if len(volume_name(vm, disk.name)) > NAME_LENGTH
    )
    errors += tuple(
        FieldError(
            where=f"spec.nics.{i}.name",
            message=f"{port_name(vm, name)} would be the port's name",
            accepted=f"the VM's and the card's names have {NAME_LENGTH - 1} characters together",
        )
        for i, name in enumerate(card_names(spec))
        if len(port_name(vm, name)) > NAME_LENGTH
    )
    if errors:
        raise Refused(INVALID, "the names of its volumes or ports would be too long", errors=errors)


@dataclass(frozen=True)
class Sources:
    """What a VM's disks begin as: its image, the image of its CD-ROM, and the volumes of the VM
    that it is a clone of, by disk, as they were in `snapshot`."""

    image: Image | None = None
    iso: Image | None = None
    snapshot: str | None = None
    volumes: Mapping[str, str] = field(default_factory=dict)


def volume_requests(vm: Vm, sources: Sources) -> tuple[CreateRequest[VolumeSpec], ...]:
    """The volumes of a VM, in the order of its disks. A CD-ROM's is asked for once its image is
    there (`missing_iso` says why not)."""
    requests = [
        _request(vm, disk, _source(vm, i, disk, sources)) for i, disk in enumerate(vm.spec.disks)
    ]
    iso = sources.iso
    if vm.spec.cd is not None and iso is not None and missing_iso(vm, iso) is None:
        size_bytes = iso.status.virtual_size_bytes or GIB
        disk = DiskRequest(name=vm.spec.cd, size_gib=-(-size_bytes // GIB))
        requests.append(_request(vm, disk, VolumeSource(volume=iso.status.volume)))
    return tuple(requests)


def missing_iso(vm: Vm, iso: Image | None) -> Part | None:
    """Why a VM's CD-ROM can't be made now, as a part of it; None if it can, or if it has none."""
    if vm.spec.cd is None or (iso is not None and iso.status.phase is Phase.READY):
        return None
    failed = iso is None or iso.status.phase is Phase.FAILED
    told = f"image {vm.spec.iso} is {iso.status.phase}" if iso else f"there is no {vm.spec.iso}"
    name = volume_name(vm.meta.name, vm.spec.cd)
    return Part("volume", name, ready=False, refused=failed, message=told)


def _source(vm: Vm, place: int, disk: DiskRequest, sources: Sources) -> VolumeSource | None:
    mode = CloneMode(vm.spec.clone)
    if sources.snapshot is not None and disk.name in sources.volumes:
        volume = sources.volumes[disk.name]
        return VolumeSource(snapshot=sources.snapshot, volume=volume, mode=mode)
    image = sources.image
    if place == 0 and image is not None and image.status.volume is not None:
        return VolumeSource(volume=image.status.volume, mode=mode)
    return None


def _request(vm: Vm, disk: DiskRequest, source: VolumeSource | None) -> CreateRequest[VolumeSpec]:
    spec = VolumeSpec(
        size_gib=disk.size_gib,
        replicas=disk.replicas,
        pool=disk.pool,
        thin=disk.thin,
        source=source,
        qos=disk.qos,
    )
    meta = NewMeta(name=volume_name(vm.meta.name, disk.name), project=vm.meta.project)
    return CreateRequest[VolumeSpec](meta=meta, spec=spec, owner=owner_of(vm))


def origin_request(vm: Vm, origin: Vm) -> CreateRequest[SnapshotSpec] | None:
    """The snapshot of its origin's disks from which a VM's begin; None: it shares none."""
    volumes = tuple(origin_volumes(vm, origin).values())
    if not volumes:
        return None
    meta = NewMeta(name=f"{vm.meta.name[:56]}-origin", project=vm.meta.project)
    return CreateRequest[SnapshotSpec](
        meta=meta, spec=SnapshotSpec(volumes=volumes), owner=owner_of(vm)
    )


def origin_volumes(vm: Vm, origin: Vm) -> dict[str, str]:
    """The volumes of its origin that a VM's disks begin as, by disk."""
    asked = {d.name for d in vm.spec.disks}
    return {d.name: d.volume for d in disks_to_have(origin) if d.name in asked and not d.cd}


def port_requests(vm: Vm, node: str) -> tuple[CreateRequest[PortSpec], ...]:
    """The ports of a VM on `node`, in the order of its cards."""
    return tuple(
        CreateRequest[PortSpec](
            meta=NewMeta(name=port_name(vm.meta.name, name), project=vm.meta.project),
            spec=_port_spec(vm, nic, node),
            owner=owner_of(vm),
        )
        for name, nic in zip(card_names(vm.spec), vm.spec.nics, strict=True)
    )


def _port_spec(vm: Vm, nic: NicRequest, node: str) -> PortSpec:
    bounds = {} if nic.qos is None else {"qos": nic.qos}
    return PortSpec(
        network=nic.network,
        addresses=(nic.address,) if nic.address else (),
        security_groups=nic.security_groups,
        hostname=vm.meta.name,
        node=node,
        **bounds,
    )


def change_of(has: Model, asked: Model) -> dict[str, object]:
    """What a part that is there has to change to be as asked: a volume only grows, and bounds
    of a port that were not asked for are its own."""
    if isinstance(has, VolumeSpec) and isinstance(asked, VolumeSpec):
        return {"size_gib": asked.size_gib} if asked.size_gib > has.size_gib else {}
    if isinstance(has, PortSpec) and isinstance(asked, PortSpec):
        said = {"security_groups", "qos"} & (asked.model_fields_set | {"security_groups"})
        told = asked.model_dump(mode="json", include=said)
        return {f: told[f] for f in sorted(said) if getattr(asked, f) != getattr(has, f)}
    return {}


def disks_of(vm: Vm, made: Container[str]) -> tuple[VmDisk, ...]:
    """The disks of a VM as its status shows them, with what is known of them kept. `made` are
    the names of the volumes that are as asked; a disk of before that is leaving stays."""
    known = {d.name: d for d in vm.status.disks}
    asked = {d.name for d in disks_asked(vm.spec)}
    disks = []
    for disk in disks_asked(vm.spec):
        volume = volume_name(vm.meta.name, disk.name)
        had = known.get(disk.name)
        if volume in made:
            had = had or VmDisk(name=disk.name, volume=volume, cd=disk.name == vm.spec.cd)
            had = had.model_copy(update={"size_gib": disk.size_gib, "released": False})
        if had is not None:
            disks.append(had)
    return (*disks, *(d for d in vm.status.disks if d.name not in asked))


def nics_of(vm: Vm, parts: Mapping[str, Part], made: Container[str]) -> tuple[VmNic, ...]:
    """The cards of a VM as its status shows them; `parts` are its ports by name, `made` those
    that are as asked."""
    known = {n.port: n for n in vm.status.nics}
    asked, nics = set(), []
    for name, nic in zip(card_names(vm.spec), vm.spec.nics, strict=True):
        port = port_name(vm.meta.name, name)
        asked.add(port)
        had = known.get(port)
        if port in made and port in parts:
            had = had or VmNic(port=port, network=nic.network)
            shown = {
                "name": name,
                "mac": parts[port].mac,
                "addresses": parts[port].addresses,
                "security_groups": nic.security_groups,
                "qos": nic.qos,
                "released": False,
            }
            had = had.model_copy(update=shown)
        if had is not None:
            nics.append(had)
    return (*nics, *(n for n in vm.status.nics if n.port not in asked))


def to_make(vm: Vm) -> frozenset[str]:
    """The names of the volumes and ports that are not there yet, or not as the spec asks."""
    disks = {d.name: d for d in disks_to_have(vm)}
    nics = {n.port: n for n in nics_to_have(vm)}
    found = set()
    for disk in disks_asked(vm.spec):
        has = disks.get(disk.name)
        if has is None or has.size_gib != disk.size_gib:
            found.add(volume_name(vm.meta.name, disk.name))
    for name, nic in zip(card_names(vm.spec), vm.spec.nics, strict=True):
        card = nics.get(port_name(vm.meta.name, name))
        if card is None or (card.security_groups, card.qos) != (nic.security_groups, nic.qos):
            found.add(port_name(vm.meta.name, name))
    return frozenset(found)


def to_remove(vm: Vm, held: bool) -> tuple[VmDisk | VmNic, ...]:
    """What is asked for no more and can go: let go of by its node; all of it where no node
    `held` the VM yet."""
    asked = {d.name for d in disks_asked(vm.spec)}
    cards = set(card_names(vm.spec))
    return (
        *(d for d in vm.status.disks if d.name not in asked and (d.released or not held)),
        *(n for n in vm.status.nics if card_of(vm, n) not in cards and (n.released or not held)),
    )


def without(vm: Vm, gone: Container[str]) -> Vm:
    """`vm` with nothing left in its status of these volumes and ports (by name)."""
    disks = tuple(d for d in vm.status.disks if d.volume not in gone)
    nics = tuple(n for n in vm.status.nics if n.port not in gone)
    addresses = tuple(a for n in nics for a in n.addresses)
    return vm.with_status(disks=disks, nics=nics, addresses=addresses)
