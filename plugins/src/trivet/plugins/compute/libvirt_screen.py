"""A guest's screen: the devices behind it, and a picture of what it shows.

VNC listens on a unix socket that only this node's root can open, so it needs no password: who may
come is decided before. Viewers share the screen; none can turn the others away.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from trivet.contracts.errors import CONFLICT, Refused
from trivet.contracts.model import ResourceId
from trivet.plugins.compute.picture import png_of

if TYPE_CHECKING:
    import libvirt

ROOT_PORTS = 1
"""Root ports that the devices of a screen take: the tablet's."""

VIDEO_KIB = 16 * 1024


def add_screen(devices: ET.Element, socket: Path) -> None:
    """A plain VGA, which firmware and every guest know, with keyboard and tablet, on VNC."""
    graphics = ET.SubElement(devices, "graphics", type="vnc", sharePolicy="force-shared")
    ET.SubElement(graphics, "listen", type="socket", socket=str(socket))
    video = ET.SubElement(devices, "video")
    ET.SubElement(video, "model", type="vga", vram=str(VIDEO_KIB), heads="1", primary="yes")
    # A tablet says where the pointer is, a mouse only how it moved: then two pointers drift apart.
    ET.SubElement(devices, "input", type="tablet", bus="virtio")


def screenshot(connection: libvirt.virConnect, domain: libvirt.virDomain, id_: ResourceId) -> bytes:
    """What the domain's screen shows now (PNG). Blocking; `Refused` if it does not run."""
    if not domain.isActive():
        raise Refused(CONFLICT, f"{id_} does not run: it has no screen")
    pieces: list[bytes] = []
    stream = connection.newStream(0)
    domain.screenshot(stream, 0, 0)
    stream.recvAll(lambda _stream, piece, _opaque: pieces.append(piece), None)
    stream.finish()
    return png_of(b"".join(pieces))
