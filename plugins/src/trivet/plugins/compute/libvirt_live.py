"""Blocking calls that change a running domain; always run in a thread, by `Connection.run`.

What the guest has is read from the domain's live XML, and every change is also written into our
record beside the running domain.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from trivet.contracts.compute.hot_plug import MEMORY_STEP_MIB
from trivet.contracts.compute.hypervisor import (
    DomainDisk,
    DomainNic,
    DomainSpec,
    DomainTuning,
)
from trivet.contracts.errors import CONFLICT, DRIVER_FAILED, INVALID, NOT_SUPPORTED, Refused, Retry
from trivet.contracts.model import ResourceId
from trivet.plugins.compute.libvirt_cpu_xml import (
    PERIOD_US,
    check,
    kernel_shares,
    quota_us,
    vcpu_set,
)
from trivet.plugins.compute.libvirt_device_xml import (
    CD_ALIAS,
    cd_element,
    dimm,
    disk_element,
    free_target,
    nic_element,
)
from trivet.plugins.compute.libvirt_devices import LiveDevice, devices_of, has_drive
from trivet.plugins.compute.libvirt_domains import KIB_PER_MIB, find, record_of
from trivet.plugins.compute.libvirt_reconnect import (
    connect_now,
    disk_nodes,
    keep_connected,
    said_in_xml,
)
from trivet.plugins.compute.libvirt_xml import NAMESPACE, PREFIX, record_element

if TYPE_CHECKING:
    import libvirt

BUFFER_USED = re.compile(r"gen code size\s+(?P<used>[0-9]+)/(?P<size>[0-9]+)")
CAN_NOT_GROW = "Cannot grow NBD nodes"
UNPLUG_UNDER_WAY = "in the process of unplug"


def plug(connection: libvirt.virConnect, id_: ResourceId, device: DomainDisk | DomainNic) -> None:
    """Give the guest a disk or a card, unless it has it."""
    import libvirt

    domain, spec = _running(connection, id_)
    disks, nics = devices_of(domain.XMLDesc(0), spec)
    if isinstance(device, DomainDisk):
        if device.name in {d.name for d in disks}:
            return
        if device.cd:
            _change_cd(domain, spec, device)
            return
        target = free_target({d.target for d in disks if d.target})
        element = disk_element(target, device, reconnects=said_in_xml(connection))
        after = spec.model_copy(update={"disks": (*_kept(spec.disks, disks), device)})
    else:
        if device.mac in {n.name for n in nics}:
            return
        element = nic_element(device)
        kept = tuple(nic for nic in spec.nics if nic.mac in {n.name for n in nics})
        after = spec.model_copy(update={"nics": (*kept, device)})
    known = frozenset(disk_nodes(domain))
    xml = ET.tostring(element, encoding="unicode")
    domain.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    if not said_in_xml(connection):
        keep_connected(domain, known)
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
    if found.alias == CD_ALIAS:
        _change_cd(domain, spec, None)
        return
    try:
        domain.detachDeviceAlias(found.alias, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    except libvirt.libvirtError as e:
        if UNPLUG_UNDER_WAY not in str(e):
            raise


def _change_cd(domain: libvirt.virDomain, spec: DomainSpec, disk: DomainDisk | None) -> None:
    """Put a CD-ROM into the drive, or nothing; a guest that locked the tray is not asked."""
    import libvirt

    if not has_drive(ET.fromstring(domain.XMLDesc(0))):
        detail = f"{spec.id} was started without a CD-ROM drive"
        raise Refused(NOT_SUPPORTED, detail, hint="stop it and start it")
    # What is booted from was said at the start: libvirt refuses to change that with the medium.
    plain = disk.model_copy(update={"boot_order": None}) if disk else None
    xml = ET.tostring(cd_element(plain), encoding="unicode")
    flags = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE
    domain.updateDeviceFlags(xml, flags)
    kept = tuple(d for d in spec.disks if not d.cd)
    _write_record(domain, spec.model_copy(update={"disks": (*kept, *((disk,) if disk else ()))}))


def scale(connection: libvirt.virConnect, id_: ResourceId, vcpus: int, memory_mib: int) -> None:
    """Give the guest more processors and, as one more DIMM, more memory."""
    import libvirt

    domain, spec = _running(connection, id_)
    _, memory_kib, _, has_vcpus, _ = domain.info()
    more_mib = memory_mib - memory_kib // KIB_PER_MIB
    if vcpus > max(has_vcpus, spec.max_vcpus or 0):
        raise Refused(NOT_SUPPORTED, f"{id_} was not made for {vcpus} vcpus")
    if more_mib > 0 and memory_mib > (spec.max_memory_mib or 0):
        raise Refused(NOT_SUPPORTED, f"{id_} was not made for {memory_mib} MiB")
    if more_mib > 0 and more_mib % MEMORY_STEP_MIB:
        raise Refused(NOT_SUPPORTED, f"memory comes in steps of {MEMORY_STEP_MIB} MiB")
    if vcpus > has_vcpus:
        _check_translation(domain)
        domain.setVcpusFlags(vcpus, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    if more_mib > 0:
        domain.attachDeviceFlags(dimm(more_mib), libvirt.VIR_DOMAIN_AFFECT_LIVE)
    sizes = {"vcpus": max(vcpus, has_vcpus), "memory_mib": max(memory_mib, spec.memory_mib)}
    _write_record(domain, spec.model_copy(update=sizes))


def tune(
    connection: libvirt.virConnect,
    id_: ResourceId,
    tuning: DomainTuning,
    *,
    cgroups: bool,
    unified: bool,
) -> None:
    """Weigh, limit and pin a running guest; on the host it takes effect at once."""
    import libvirt

    domain, spec = _running(connection, id_)
    check(tuning, cgroups)
    live = libvirt.VIR_DOMAIN_AFFECT_LIVE
    if cgroups:
        parameters = {"vcpu_period": PERIOD_US, "vcpu_quota": quota_us(tuning)}
        if tuning.shares is not None:
            parameters["cpu_shares"] = kernel_shares(tuning.shares, unified)
        domain.setSchedulerParametersFlags(parameters, live)
    cpus = os.cpu_count() or 1
    for vcpu in range(domain.info()[3]):
        domain.pinVcpuFlags(vcpu, _map(vcpu_set(tuning, vcpu), cpus), live)
    domain.pinEmulator(_map(tuning.allowed, cpus), live)
    _write_record(domain, spec.model_copy(update={"cpu": tuning}))


def set_target(connection: libvirt.virConnect, id_: ResourceId, memory_mib: int) -> None:
    """Ask the guest's balloon to leave it that much memory."""
    import libvirt

    domain, _ = _running(connection, id_)
    most_mib = domain.info()[1] // KIB_PER_MIB
    if memory_mib > most_mib:
        raise Refused(INVALID, f"{id_} has {most_mib} MiB: it can't use {memory_mib}")
    domain.setMemoryFlags(memory_mib * KIB_PER_MIB, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def _map(processors: tuple[int, ...], cpus: int) -> tuple[bool, ...]:
    return tuple(not processors or number in processors for number in range(cpus))


def _check_translation(domain: libvirt.virDomain) -> None:
    """Raises `Refused` where one more vcpu could end QEMU: under translation each needs a free part
    of the buffer for translated code, and QEMU (up to 10 at least) aborts if there is none."""
    import libvirt_qemu

    flags = libvirt_qemu.VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP
    found = BUFFER_USED.search(libvirt_qemu.qemuMonitorCommand(domain, "info jit", flags))
    if found is not None and int(found["used"]) > int(found["size"]) // 2:
        raise Refused(
            NOT_SUPPORTED,
            "no vcpu can be added now: this guest runs by translation, and its buffer is full",
            hint="stop it and start it",
        )


def resize(connection: libvirt.virConnect, id_: ResourceId, disk: str, size_bytes: int) -> None:
    """Show the guest a disk's new size. QEMU learns it when it connects to the disk's server
    anew, which it does at the next request to it: so one is made here."""
    import libvirt

    domain, spec = _running(connection, id_)
    found = next((d for d in devices_of(domain.XMLDesc(0), spec)[0] if d.name == disk), None)
    if found is None or found.target is None:
        raise Refused(CONFLICT, f"{id_} has no disk {disk}")
    connect_now(domain, found.alias)
    try:
        domain.blockResize(found.target, size_bytes, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    except libvirt.libvirtError as e:
        if CAN_NOT_GROW not in str(e):
            raise
        detail = f"the server of disk {disk} does not show {size_bytes} bytes yet"
        raise Retry(DRIVER_FAILED, detail, retry_after_s=1.0) from e


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
