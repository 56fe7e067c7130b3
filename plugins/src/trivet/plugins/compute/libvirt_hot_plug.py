"""The part of the libvirt driver that changes running guests: `contracts.compute.hot_plug`."""

from __future__ import annotations

from trivet.contracts.compute.hypervisor import DomainDisk, DomainNic
from trivet.contracts.model import ResourceId
from trivet.plugins.compute import libvirt_live
from trivet.plugins.compute.libvirt_connection import Connection


class LibvirtHotPlug:
    """Hot-plug over the driver's connection."""

    _connection: Connection

    async def plug(self, id_: ResourceId, device: DomainDisk | DomainNic) -> None:
        """Give the running guest a disk or a card."""
        await self._connection.run(lambda c: libvirt_live.plug(c, id_, device))

    async def unplug(self, id_: ResourceId, device: str) -> None:
        """Ask the running guest to let go of a disk (by name) or a card (by MAC)."""
        await self._connection.run(lambda c: libvirt_live.unplug(c, id_, device))

    async def scale(self, id_: ResourceId, vcpus: int, memory_mib: int) -> None:
        """Give the running guest more processors and memory."""
        await self._connection.run(lambda c: libvirt_live.scale(c, id_, vcpus, memory_mib))

    async def resize(self, id_: ResourceId, disk: str, size_bytes: int) -> None:
        """Show the running guest that a disk has grown."""
        await self._connection.run(lambda c: libvirt_live.resize(c, id_, disk, size_bytes))
