"""The parts of the libvirt driver about running guests: `contracts.compute.hot_plug`,
`cpu_control`, `balloon`, `stats`."""

from __future__ import annotations

import asyncio

from trivet.contracts.compute.balloon import HostMemory
from trivet.contracts.compute.hypervisor import DomainDisk, DomainNic, DomainTuning
from trivet.contracts.compute.stats import GuestStats
from trivet.contracts.model import ResourceId
from trivet.plugins.compute import inventory, libvirt_live, libvirt_stats
from trivet.plugins.compute.libvirt_connection import Connection


class LibvirtHotPlug:
    """Hot-plug and statistics over the driver's connection."""

    _connection: Connection
    _cgroups: bool
    _unified: bool

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

    async def tune(self, id_: ResourceId, tuning: DomainTuning) -> None:
        """Weigh, limit and pin the running guest."""
        how = {"cgroups": self._cgroups, "unified": self._unified}
        await self._connection.run(lambda c: libvirt_live.tune(c, id_, tuning, **how))

    async def host_memory(self) -> HostMemory:
        """The node's memory now."""
        return await asyncio.to_thread(inventory.memory)

    async def set_target(self, id_: ResourceId, memory_mib: int) -> None:
        """Ask the running guest to use that much memory."""
        await self._connection.run(lambda c: libvirt_live.set_target(c, id_, memory_mib))

    async def stats(self, id_: ResourceId) -> GuestStats:
        """What a running guest uses."""
        return await self._connection.run(lambda c: libvirt_stats.stats(c, id_))
