"""Whether what libvirt would start next is what we defined: told by a digest kept in our record.

libvirt writes a definition in its own way, so the digest is of what it gave back right after. It is
kept in the definition's metadata, which the digest leaves out. Blocking; run by `Connection.run`.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from trivet.contracts.compute.hypervisor import DomainSpec
from trivet.contracts.model import ResourceId
from trivet.plugins.compute.libvirt_xml import NAMESPACE, PREFIX, SHAPE, record_element

if TYPE_CHECKING:
    import libvirt


def seal(domain: libvirt.virDomain, spec: DomainSpec, digest: str) -> None:
    """Keep how libvirt wrote down what was just defined."""
    import libvirt

    root = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    domain.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT,
        record_element(spec, digest, shape_of(root)),
        PREFIX,
        NAMESPACE,
        libvirt.VIR_DOMAIN_AFFECT_CONFIG,
    )


def altered(connection: libvirt.virConnect) -> tuple[ResourceId, ...]:
    """Our domains whose definitions are not what was sealed; of one that never was nothing is
    known, and one that vanished meanwhile is left out."""
    import libvirt

    found = []
    for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT):
        try:
            root = ET.fromstring(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
        except libvirt.libvirtError as e:
            if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            continue
        record = root.find(f"./metadata/{{{NAMESPACE}}}domain")
        sealed = record.get(SHAPE) if record is not None else None
        if record is not None and sealed is not None and sealed != shape_of(root):
            found.append(ResourceId(record.get("id", "")))
    return tuple(found)


def shape_of(root: ET.Element) -> str:
    """The digest of a definition but for its metadata."""
    parts = [ET.tostring(child) for child in root if child.tag != "metadata"]
    return hashlib.sha256(b"".join(parts)).hexdigest()
