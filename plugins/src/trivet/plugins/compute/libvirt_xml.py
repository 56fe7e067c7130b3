"""Turns a whole domain into libvirt's XML, and reads our own record back out of it.

Pure: what differs between hosts comes in as `HostFacts`. Beside the devices the XML carries a
metadata element in our own namespace with the specification itself, so that what runs on a node
tells the cluster what it is (id, project, generation, epoch) even when all else is lost. It
also carries a digest of the XML as rendered: a domain is defined alike if its digest is equal.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from pydantic import ValidationError

from trivet.contracts.compute.hypervisor import DomainSpec
from trivet.contracts.compute.node import Accel
from trivet.contracts.errors import INVALID, NOT_SUPPORTED, Refused
from trivet.contracts.model import ResourceId
from trivet.plugins.compute import libvirt_screen
from trivet.plugins.compute.libvirt_cpu_xml import add_tuning
from trivet.plugins.compute.libvirt_device_xml import (
    cd_element,
    disk_element,
    leaf,
    letters,
    nic_element,
    seed_element,
)

NAMESPACE = "urn:trivet:domain:1"
PREFIX, ELEMENT = "trivet", "domain"
SHAPE = "shape"
SPARE_ROOT_PORTS = 8
DIMM_SLOTS = 16
TB_CACHE_MIB = 32
TB_CACHE_GROWING_MIB = 512  # not resident; each vcpu that comes needs a free part of it

_SAFE_ID = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_UUIDS = uuid.UUID("5f3c2b0e-8d0a-4a57-9f35-2b9a0c1d7e64")  # ours: ids become UUIDs within it


@dataclass(frozen=True)
class HostFacts:
    """What the XML needs to know of the host.

    `console_dir` holds the consoles' sockets, `log_dir` their logs, `nvram_dir` the variables
    of UEFI guests, `seed_dir` what new guests are told. `cgroups` says whether libvirtd has a
    cgroup for its guests (shares and limits), named as all that is made here, `unified` whether it
    is of the second generation, `reconnects` whether it can be told that disks connect again to
    their servers.
    """

    accel: Accel
    emulator: str
    console_dir: Path
    log_dir: Path
    nvram_dir: Path
    seed_dir: Path
    name_prefix: str = "tv"
    uefi_code: str | None = None
    uefi_vars: str | None = None
    cgroups: bool = False
    unified: bool = False
    reconnects: bool = False
    tpm: bool = False


def domain_uuid(id_: ResourceId) -> str:
    """The UUID under which libvirt knows a VM: always the same for the same id."""
    return str(uuid.uuid5(_UUIDS, id_))


def domain_name(facts: HostFacts, id_: ResourceId) -> str:
    """The name under which libvirt knows a VM."""
    return f"{facts.name_prefix}-{_safe(id_)}"


def console_socket(facts: HostFacts, id_: ResourceId) -> Path:
    """The unix socket of a domain's serial console. Raises `Refused` for an unsafe id."""
    return facts.console_dir / f"{_safe(id_)}.sock"


def screen_socket(facts: HostFacts, id_: ResourceId) -> Path:
    """The unix socket of a domain's screen (VNC)."""
    return facts.console_dir / f"{_safe(id_)}.vnc"


def console_log(facts: HostFacts, id_: ResourceId) -> Path:
    """The file that takes what a domain's serial console shows."""
    return facts.log_dir / f"{_safe(id_)}.log"


def nvram_file(facts: HostFacts, id_: ResourceId) -> Path:
    """The file with the firmware variables of a UEFI guest."""
    return facts.nvram_dir / f"{_safe(id_)}.fd"


def seed_file(facts: HostFacts, id_: ResourceId) -> Path:
    """The image with what a guest is told about itself."""
    return facts.seed_dir / f"{_safe(id_)}.iso"


def render(spec: DomainSpec, facts: HostFacts) -> str:
    """The domain's XML, with our metadata. Raises `Refused` for what this host can't do."""
    root = ET.Element("domain", type="kvm" if facts.accel is Accel.KVM else "qemu")
    leaf(root, "name", domain_name(facts, spec.id))
    leaf(root, "uuid", domain_uuid(spec.id))
    leaf(root, "title", f"{spec.project}/{spec.name}")
    metadata = ET.SubElement(root, "metadata")
    _sizes(root, spec)
    partition = facts.name_prefix if facts.cgroups else None
    add_tuning(root, spec, partition, unified=facts.unified)
    _firmware(root, spec, facts)
    _features(root, spec, facts)
    leaf(root, "on_poweroff", "destroy")
    leaf(root, "on_reboot", "restart")
    leaf(root, "on_crash", "destroy")
    _devices(root, spec, facts)
    if spec.tpm:
        _tpm(root, facts)
    digest = hashlib.sha256(ET.tostring(root) + spec.model_dump_json().encode()).hexdigest()
    metadata.append(_record(spec, digest, f"{{{NAMESPACE}}}{ELEMENT}"))
    return ET.tostring(root, encoding="unicode")


def digest_of(rendered: str) -> str:
    """The digest in XML that `render` made."""
    record = ET.fromstring(rendered).find(f"./metadata/{{{NAMESPACE}}}{ELEMENT}")
    return "" if record is None else record.get("digest", "")


def read_record(metadata_xml: str) -> tuple[DomainSpec, str] | None:
    """The specification and digest in our metadata element, or None if it is not one."""
    try:
        element = ET.fromstring(metadata_xml)
        spec = DomainSpec.model_validate_json(element.text or "")
    except (ET.ParseError, ValidationError):
        return None
    return spec, element.get("digest", "")


def _record(spec: DomainSpec, digest: str, tag: str) -> ET.Element:
    ET.register_namespace(PREFIX, NAMESPACE)
    element = ET.Element(
        tag,
        id=spec.id,
        project=spec.project,
        generation=str(spec.generation),
        epoch=str(spec.epoch),
        digest=digest,
    )
    element.text = spec.model_dump_json()
    return element


def _sizes(root: ET.Element, spec: DomainSpec) -> None:
    """Memory and processors, with the room to grow that is asked for."""
    if spec.max_memory_mib is not None:
        leaf(root, "maxMemory", str(spec.max_memory_mib), slots=str(DIMM_SLOTS), unit="MiB")
    leaf(root, "memory", str(spec.memory_mib), unit="MiB")
    vcpus = max(spec.vcpus, spec.max_vcpus or 0)
    leaf(root, "vcpu", str(vcpus), placement="static", current=str(spec.vcpus))


def _firmware(root: ET.Element, spec: DomainSpec, facts: HostFacts) -> None:
    os_ = ET.SubElement(root, "os")
    leaf(os_, "type", "hvm", arch="x86_64", machine="q35")
    if spec.firmware != "uefi":
        return
    if facts.uefi_code is None or facts.uefi_vars is None:
        raise Refused(NOT_SUPPORTED, "this node has no UEFI firmware", hint="install ovmf")
    leaf(os_, "loader", facts.uefi_code, readonly="yes", type="pflash")
    leaf(os_, "nvram", str(nvram_file(facts, spec.id)), template=facts.uefi_vars)


def _tpm(root: ET.Element, facts: HostFacts) -> None:
    """A TPM 2.0, run by swtpm; libvirt keeps its state by the domain's UUID."""
    if not facts.tpm:
        raise Refused(NOT_SUPPORTED, "this node has no TPM to give", hint="install swtpm-tools")
    devices = root.find("devices")
    assert devices is not None
    tpm = ET.SubElement(devices, "tpm", model="tpm-crb")
    ET.SubElement(tpm, "backend", type="emulator", version="2.0")


def _features(root: ET.Element, spec: DomainSpec, facts: HostFacts) -> None:
    """Processor and platform. Under translation `maximum` boots as fast as any model, and a
    small translation buffer keeps an idle guest small."""
    features = ET.SubElement(root, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if facts.accel is Accel.KVM:
        cpu = ET.SubElement(root, "cpu", mode="host-passthrough", check="none", migratable="on")
    else:
        tcg = ET.SubElement(features, "tcg")
        grows = (spec.max_vcpus or 0) > spec.vcpus
        leaf(tcg, "tb-cache", str(TB_CACHE_GROWING_MIB if grows else TB_CACHE_MIB), unit="MiB")
        cpu = ET.SubElement(root, "cpu", mode="maximum")
    if spec.max_memory_mib is not None:  # libvirt plugs memory into a NUMA cell only
        cells = ET.SubElement(cpu, "numa")
        cpus = f"0-{max(spec.vcpus, spec.max_vcpus or 0) - 1}"
        ET.SubElement(cells, "cell", id="0", cpus=cpus, memory=str(spec.memory_mib), unit="MiB")
    clock = ET.SubElement(root, "clock", offset="utc")
    ET.SubElement(clock, "timer", name="rtc", tickpolicy="catchup")
    ET.SubElement(clock, "timer", name="pit", tickpolicy="delay")
    ET.SubElement(clock, "timer", name="hpet", present="no")


def _devices(root: ET.Element, spec: DomainSpec, facts: HostFacts) -> None:
    devices = ET.SubElement(root, "devices")
    leaf(devices, "emulator", facts.emulator)
    ET.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    # Disks and cards take a root port each; some are left for what is plugged in later.
    ports = len(spec.disks) + len(spec.nics) + libvirt_screen.ROOT_PORTS + SPARE_ROOT_PORTS
    ports += spec.seed is not None
    for index in range(1, ports + 1):
        ET.SubElement(devices, "controller", type="pci", index=str(index), model="pcie-root-port")
    ET.SubElement(devices, "controller", type="usb", model="none")
    ET.SubElement(devices, "controller", type="virtio-serial", index="0")
    for index, disk in enumerate(disk for disk in spec.disks if not disk.cd):
        devices.append(disk_element(f"vd{letters(index)}", disk, reconnects=facts.reconnects))
    for disk in (disk for disk in spec.disks if disk.cd):
        devices.append(cd_element(disk))
    if spec.seed is not None:
        devices.append(seed_element(str(seed_file(facts, spec.id))))
    for nic in spec.nics:
        devices.append(nic_element(nic))
    _console(devices, spec.id, facts)
    libvirt_screen.add_screen(devices, screen_socket(facts, spec.id))
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    rng = ET.SubElement(devices, "rng", model="virtio")
    leaf(rng, "backend", "/dev/urandom", model="random")
    ET.SubElement(devices, "memballoon", model="virtio", freePageReporting="on")
    ET.SubElement(devices, "panic", model="isa")


def _console(devices: ET.Element, id_: ResourceId, facts: HostFacts) -> None:
    """The serial console on a socket, and in a log that QEMU only appends to, so that it can
    be cut short while the guest runs."""
    serial = ET.SubElement(devices, "serial", type="unix")
    ET.SubElement(serial, "source", mode="bind", path=str(console_socket(facts, id_)))
    ET.SubElement(serial, "log", file=str(console_log(facts, id_)), append="on")
    ET.SubElement(serial, "target", type="isa-serial", port="0")


def record_element(spec: DomainSpec, digest: str, shape: str | None = None) -> str:
    """Our metadata element as libvirt takes it alone: it puts it into the namespace itself.
    `shape` tells the definition that libvirt made of it (`libvirt_definitions`)."""
    element = _record(spec, digest, ELEMENT)
    if shape is not None:
        element.set(SHAPE, shape)
    return ET.tostring(element, encoding="unicode")


def _safe(id_: ResourceId) -> str:
    if not _SAFE_ID.fullmatch(id_):
        raise Refused(INVALID, f"{id_!r} can't be the id of a domain")
    return id_
