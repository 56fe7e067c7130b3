"""The XML of single devices: as parts of a whole domain, and as what is plugged into one: pure."""

from __future__ import annotations

from collections.abc import Container
from itertools import count
from xml.etree import ElementTree as ET

from trivet.contracts.compute.hypervisor import DomainDisk, DomainNic

RECONNECT_S = 10
SEED_TARGET = "vdz"
CD_ALIAS = "ua-cd"
CD_TARGET = "sda"
DISK_ALIAS = "ua-disk-"  # libvirt keeps a user's alias that begins with ua-


def disk_element(target: str, disk: DomainDisk, *, reconnects: bool) -> ET.Element:
    """A disk over NBD. An error stops the guest rather than reach it: whoever repairs the
    volume resumes it, and the guest has seen nothing. A disk whose server goes and comes again
    within `RECONNECT_S` (it was killed, or shows a new size) is only slow for that long;
    `reconnects`: this libvirt can be told so."""
    element = ET.Element("disk", type="network", device="disk")
    ET.SubElement(
        element,
        "driver",
        name="qemu",
        type="raw",
        cache="none",
        error_policy="stop",
        rerror_policy="stop",
        discard="unmap",
    )
    source = ET.SubElement(element, "source", protocol="nbd", name=disk.export)
    ET.SubElement(source, "host", transport="unix", socket=disk.socket)
    if reconnects:
        ET.SubElement(source, "reconnect", delay=str(RECONNECT_S))
    ET.SubElement(element, "target", dev=target, bus="virtio")
    leaf(element, "serial", disk.serial)
    if disk.boot_order is not None:
        ET.SubElement(element, "boot", order=str(disk.boot_order))
    ET.SubElement(element, "alias", name=f"{DISK_ALIAS}{disk.name}")
    return element


def cd_element(disk: DomainDisk | None) -> ET.Element:
    """A CD-ROM drive with that in it over NBD, or with nothing. On SATA, which firmware and every
    guest's installer know."""
    element = ET.Element("disk", type="network" if disk else "file", device="cdrom")
    ET.SubElement(element, "driver", name="qemu", type="raw")
    if disk is not None:
        source = ET.SubElement(element, "source", protocol="nbd", name=disk.export)
        ET.SubElement(source, "host", transport="unix", socket=disk.socket)
    ET.SubElement(element, "target", dev=CD_TARGET, bus="sata")
    ET.SubElement(element, "readonly")
    if disk is not None and disk.boot_order is not None:
        ET.SubElement(element, "boot", order=str(disk.boot_order))
    ET.SubElement(element, "alias", name=CD_ALIAS)
    return element


def seed_element(file: str) -> ET.Element:
    """A read-only disk from a file of this host. A plain disk, since small kernels of cloud
    images know virtio and no CD-ROM; called the last of all, so that no other takes its name."""
    element = ET.Element("disk", type="file", device="disk")
    ET.SubElement(element, "driver", name="qemu", type="raw")
    ET.SubElement(element, "source", file=file)
    ET.SubElement(element, "target", dev=SEED_TARGET, bus="virtio")
    leaf(element, "serial", "seed")
    ET.SubElement(element, "readonly")
    return element


def nic_element(nic: DomainNic) -> ET.Element:
    """A card on a device that is there already."""
    element = ET.Element("interface", type="ethernet")
    ET.SubElement(element, "mac", address=nic.mac)
    ET.SubElement(element, "target", dev=nic.device, managed="no")
    ET.SubElement(element, "model", type="virtio")
    ET.SubElement(element, "mtu", size=str(nic.mtu))
    # No boot ROM: a guest boots from its disks.
    ET.SubElement(element, "rom", enabled="no")
    return element


def dimm(size_mib: int) -> str:
    """A module of memory for a domain that has room for it."""
    element = ET.Element("memory", model="dimm")
    target = ET.SubElement(element, "target")
    leaf(target, "size", str(size_mib), unit="MiB")
    leaf(target, "node", "0")
    return ET.tostring(element, encoding="unicode")


def free_target(taken: Container[str]) -> str:
    """The first name of a disk (vda, vdb, ...) that is not taken."""
    return next(name for name in (f"vd{letters(i)}" for i in count()) if name not in taken)


def letters(index: int) -> str:
    """a, b, ..., z, aa, ab, ...: how disks are lettered."""
    letters = ""
    while index >= 0:
        letters = chr(ord("a") + index % 26) + letters
        index = index // 26 - 1
    return letters


def leaf(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    """Add an element that holds a text."""
    ET.SubElement(parent, tag, attributes).text = text
