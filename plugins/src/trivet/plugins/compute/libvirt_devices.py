"""Reads from a running domain's XML which disks and cards the guest has now: pure.

Disks are told apart by the name in their alias, cards by their MAC. A domain that was started
before disks had aliases has them in the order of our record.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree as ET

from trivet.contracts.compute.hypervisor import DomainSpec
from trivet.plugins.compute.libvirt_device_xml import CD_ALIAS, DISK_ALIAS


@dataclass(frozen=True)
class LiveDevice:
    """A disk or card of a running domain: `name` as in `DomainDisk`, or the MAC; `target` is a
    disk's device name (`vda`) in libvirt."""

    name: str
    alias: str
    target: str | None = None


def devices_of(
    xml: str | ET.Element, spec: DomainSpec
) -> tuple[list[LiveDevice], list[LiveDevice]]:
    """The disks and cards in a live domain's XML; `spec` is our record in it."""
    root = ET.fromstring(xml) if isinstance(xml, str) else xml
    found = root.findall("./devices/disk[@device='disk']")
    elements = [e for e in found if e.find("readonly") is None]  # a seed is no disk of the VM's
    plain = spec.model_copy(update={"disks": tuple(d for d in spec.disks if not d.cd)})
    disks = [_disk(element, i, plain) for i, element in enumerate(elements)]
    disks += _cd(root, spec)
    nics = [
        LiveDevice(_attribute(card, "mac", "address"), _attribute(card, "alias", "name"))
        for card in root.findall("./devices/interface")
    ]
    return disks, nics


def has_drive(root: ET.Element) -> bool:
    """Whether a live domain has a CD-ROM drive."""
    return root.find("./devices/disk[@device='cdrom']") is not None


def _cd(root: ET.Element, spec: DomainSpec) -> list[LiveDevice]:
    """What is in the drive of a live domain: it is called as our record says."""
    source = root.find("./devices/disk[@device='cdrom']/source")
    name = next((d.name for d in spec.disks if d.cd), "cd")
    # An empty drive has a source, too, which names nothing.
    full = source is not None and (source.get("name") or source.get("file"))
    return [LiveDevice(name, CD_ALIAS)] if full else []


def _disk(element: ET.Element, place: int, spec: DomainSpec) -> LiveDevice:
    alias, target = _attribute(element, "alias", "name"), _attribute(element, "target", "dev")
    if alias.startswith(DISK_ALIAS):
        return LiveDevice(alias.removeprefix(DISK_ALIAS), alias, target)
    name = spec.disks[place].name if place < len(spec.disks) else target
    return LiveDevice(name, alias, target)


def _attribute(element: ET.Element, tag: str, name: str) -> str:
    found = element.find(tag)
    return "" if found is None else found.get(name, "")
