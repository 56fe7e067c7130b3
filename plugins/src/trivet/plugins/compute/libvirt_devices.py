"""Reads from a running domain's XML which disks and cards the guest has now: pure.

Disks are told apart by the name in their alias, cards by their MAC. A domain that was started
before disks had aliases has them in the order of our record.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree as ET

from trivet.contracts.compute.hypervisor import DomainSpec
from trivet.plugins.compute.libvirt_device_xml import DISK_ALIAS


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
    disks = [_disk(element, i, spec) for i, element in enumerate(elements)]
    nics = [
        LiveDevice(_attribute(card, "mac", "address"), _attribute(card, "alias", "name"))
        for card in root.findall("./devices/interface")
    ]
    return disks, nics


def _disk(element: ET.Element, place: int, spec: DomainSpec) -> LiveDevice:
    alias, target = _attribute(element, "alias", "name"), _attribute(element, "target", "dev")
    if alias.startswith(DISK_ALIAS):
        return LiveDevice(alias.removeprefix(DISK_ALIAS), alias, target)
    name = spec.disks[place].name if place < len(spec.disks) else target
    return LiveDevice(name, alias, target)


def _attribute(element: ET.Element, tag: str, name: str) -> str:
    found = element.find(tag)
    return "" if found is None else found.get(name, "")
