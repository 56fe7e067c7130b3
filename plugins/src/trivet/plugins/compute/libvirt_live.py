"""Blocking calls that change a running domain; always run in a thread, by `Connection.run`.

What the guest has is read from the domain's live XML, and every change is also written into our
record beside the running domain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from trivet.contracts.compute.hypervisor import DomainDisk, DomainNic, DomainSpec
from trivet.contracts.errors import CONFLICT, Refused
from trivet.contracts.model import ResourceId
from trivet.plugins.compute.libvirt_devices import LiveDevice, devices_of
from trivet.plugins.compute.libvirt_domains import find, record_of
from trivet.plugins.compute.libvirt_xml import (
    NAMESPACE,
    PREFIX,
    disk_element,
    free_target,
    nic_element,
    record_element,
)

if TYPE_CHECKING:
    import libvirt

UNPLUG_UNDER_WAY = "in the process of unplug"


def plug(connection: libvirt.virConnect, id_: ResourceId, device: DomainDisk | DomainNic) -> None:
    """Give the guest a disk or a card, unless it has it."""
    import libvirt

    domain, spec = _running(connection, id_)
    disks, nics = devices_of(domain.XMLDesc(0), spec)
    if isinstance(device, DomainDisk):
        if device.name in {d.name for d in disks}:
            return
        element = disk_element(free_target({d.target for d in disks if d.target}), device)
        after = spec.model_copy(update={"disks": (*_kept(spec.disks, disks), device)})
    else:
        if device.mac in {n.name for n in nics}:
            return
        element = nic_element(device)
        kept = tuple(nic for nic in spec.nics if nic.mac in {n.name for n in nics})
        after = spec.model_copy(update={"nics": (*kept, device)})
    xml = ET.tostring(element, encoding="unicode")
    domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    _write_record(domain, after)


def unplug(connection: libvirt.virConnect, id_: ResourceId, device: str) -> None:
    """Ask the guest to let go of a disk or card; what it does not have is gone already."""
    import libvirt

    domain, spec = _running(connection, id_)
    disks, nics = devices_of(domain.XMLDesc(0), spec)
    found = next((d for d in (*disks, *nics) if d.name == device), None)
    after = spec.model_copy(
        update={
            "disks": tuple(d for d in spec.disks if d.name != device),
            "nics": tuple(n for n in spec.nics if n.mac != device),
        }
    )
    if found is None:
        if after != spec:
            _write_record(domain, after)
        return
    try:
        domain.detachDeviceAlias(found.alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as e:
        if UNPLUG_UNDER_WAY not in str(e):
            raise


def _kept(disks: tuple[DomainDisk, ...], live: list[LiveDevice]) -> tuple[DomainDisk, ...]:
    there = {device.name for device in live}
    return tuple(disk for disk in disks if disk.name in there)


def _running(
    connection: libvirt.virConnect, id_: ResourceId
) -> tuple[libvirt.virDomain, DomainSpec]:
    domain = find(connection, id_)
    record = record_of(domain)
    if record is None or not domain.isActive():
        raise Refused(CONFLICT, f"{id_} does not run: its hardware can't change")
    return domain, record[0]


def _write_record(domain: libvirt.virDomain, spec: DomainSpec) -> None:
    import libvirt

    record = record_of(domain)
    digest = record[1] if record else ""
    domain.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT,
        record_element(spec, digest),
        PREFIX,
        NAMESPACE,
        libvirt.VIR_DOMAIN_AFFECT_LIVE,
    )
