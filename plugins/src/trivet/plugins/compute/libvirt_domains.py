"""Blocking calls to libvirtd about our domains; always run in a thread, by `Connection.run`.

Here it is decided what an act means in each state a domain can be in, and which domains are
ours: those that libvirt knows under the UUID of an id of ours and with our metadata.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from trivet.contracts.compute.hypervisor import Act, DomainSpec, DomainState
from trivet.contracts.compute.vm import Power
from trivet.contracts.errors import CONFLICT, IN_USE, NAME_TAKEN, NOT_FOUND, Refused
from trivet.contracts.model import ResourceId
from trivet.plugins.compute.libvirt_cpu_xml import tuning_in
from trivet.plugins.compute.libvirt_definitions import seal
from trivet.plugins.compute.libvirt_devices import devices_of
from trivet.plugins.compute.libvirt_reconnect import keep_connected, said_in_xml
from trivet.plugins.compute.libvirt_state import power_of
from trivet.plugins.compute.libvirt_xml import NAMESPACE, digest_of, domain_uuid, read_record

if TYPE_CHECKING:
    import libvirt

KIB_PER_MIB = 1024


def version_text(version: int) -> str:
    """libvirt's number for a version, in words: 7002022 is `7.2.22`."""
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"


def find(connection: libvirt.virConnect, id_: ResourceId) -> libvirt.virDomain:
    """Our domain. Raises `Refused(NOT_FOUND)` if there is none, or if it is not ours."""
    domain = _lookup(connection, id_)
    if domain is None or record_of(domain) is None:
        raise Refused(NOT_FOUND, f"no domain {id_} on this node")
    return domain


def record_of(domain: libvirt.virDomain, config: bool = False) -> tuple[DomainSpec, str] | None:
    """Our record in the domain (of the next start if `config`), or None: not ours."""
    import libvirt

    flags = libvirt.VIR_DOMAIN_AFFECT_CONFIG if config else libvirt.VIR_DOMAIN_AFFECT_CURRENT
    try:
        text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE, flags)
    except libvirt.libvirtError as e:
        if e.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN_METADATA, libvirt.VIR_ERR_NO_DOMAIN):
            return None
        raise
    return read_record(text)


def define(
    connection: libvirt.virConnect,
    spec: DomainSpec,
    rendered: str,
    *,
    anew: bool = False,
    validate: bool = False,
) -> None:
    """Make the domain known; nothing if what libvirt would start next is alike, unless `anew`.
    To `validate` takes longer than all the rest, and can only find mistakes of this driver."""
    import libvirt

    domain, digest = _lookup(connection, spec.id), digest_of(rendered)
    if domain is not None:
        record = record_of(domain, config=True)
        if record is None:
            raise Refused(NAME_TAKEN, f"somebody else's domain has the UUID of {spec.id}")
        if record[1] == digest and not anew:
            return
    flags = libvirt.VIR_DOMAIN_DEFINE_VALIDATE if validate else 0
    domain = connection.defineXMLFlags(rendered, flags)
    seal(domain, spec, digest)


def undefine(connection: libvirt.virConnect, id_: ResourceId) -> None:
    """Forget the domain with all that libvirt keeps of it; gone already is fine."""
    import libvirt

    domain = _lookup(connection, id_)
    if domain is None or record_of(domain) is None:
        return
    if domain.isActive():
        raise Refused(IN_USE, f"{id_} runs: it can't be forgotten", hint="destroy it first")
    domain.undefineFlags(
        libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
        | libvirt.VIR_DOMAIN_UNDEFINE_TPM
        | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    )


def states(
    connection: libvirt.virConnect, ids: Collection[ResourceId] | None = None
) -> list[DomainState]:
    """All domains that are ours, or those of `ids`. One that vanishes meanwhile is left out."""
    import libvirt

    found = []
    looked_up = (_lookup(connection, id_) for id_ in ids or ())
    for domain in connection.listAllDomains(0) if ids is None else looked_up:
        if domain is None:
            continue
        try:
            state = _state(domain)
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            continue
        if state is not None:
            found.append(state)
    return sorted(found, key=lambda state: state.id)


def perform(
    connection: libvirt.virConnect, id_: ResourceId, act: Act, before_start: Callable[[], None]
) -> None:
    """Do one act. `before_start` is called when the domain is really about to start."""
    domain = find(connection, id_)
    active = bool(domain.isActive())
    if act is Act.START:
        if not active:
            before_start()
            domain.create()
            if not said_in_xml(connection):
                keep_connected(domain)
    elif act in (Act.SHUTDOWN, Act.DESTROY):
        if active:
            _end(domain, act)
    elif not active:
        raise Refused(CONFLICT, f"{id_} does not run: {act.value} is not possible")
    else:
        _change(domain, act)


def _end(domain: libvirt.virDomain, act: Act) -> None:
    """Ask the guest to end, or end it; that it ended by itself meanwhile is fine."""
    import libvirt

    try:
        if act is Act.SHUTDOWN:
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        else:
            domain.destroy()
    except libvirt.libvirtError as e:
        if e.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or domain.isActive():
            raise


def _change(domain: libvirt.virDomain, act: Act) -> None:
    import libvirt

    paused = domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED
    if act is Act.RESET:
        domain.reset()
    elif act is Act.SUSPEND and not paused:
        domain.suspend()
    elif act is Act.RESUME and paused:
        domain.resume()


def _state(domain: libvirt.virDomain) -> DomainState | None:
    record = record_of(domain)
    if record is None:
        return None
    spec = record[0]
    if domain.UUIDString() != domain_uuid(spec.id):
        return None  # a copy that somebody made of one of ours, with its metadata
    power, reason = power_of(*domain.state())
    _, memory_kib, _, vcpus, _ = domain.info()
    active = power in (Power.RUNNING, Power.PAUSED)
    xml = ET.fromstring(domain.XMLDesc(0)) if active else ET.Element("domain")
    disks, nics = devices_of(xml, spec)
    return DomainState(
        id=spec.id,
        name=spec.name,
        generation=spec.generation,
        epoch=spec.epoch,
        power=power,
        reason=reason,
        memory_mib=memory_kib // KIB_PER_MIB,
        vcpus=vcpus,
        disks=tuple(disk.name for disk in disks),
        nics=tuple(nic.name for nic in nics),
        cpu=tuning_in(xml, spec, vcpus, os.cpu_count() or 1) if active else None,
    )


def _lookup(connection: libvirt.virConnect, id_: ResourceId) -> libvirt.virDomain | None:
    import libvirt

    try:
        return connection.lookupByUUIDString(domain_uuid(id_))
    except libvirt.libvirtError as e:
        if e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise
