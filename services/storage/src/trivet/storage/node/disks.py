"""The duty of a node's agent towards disks: tell the cluster which there are, and what is on them.

It reads only. A disk that is not found any more reads as unknown, never as gone.
"""

from __future__ import annotations

from functools import partial

from trivet.contracts.resource import Meta, Phase
from trivet.contracts.storage.disk import DISK, Disk, DiskFacts, DiskSpec, DiskStatus
from trivet.contracts.storage.inspector import DiskInspector
from trivet.runtime.clock import new_id
from trivet.runtime.collection import Collection
from trivet.runtime.service import Service
from trivet.storage.domain.disks import disk_name, found, missing


class DiskAgent:
    """Tells of this node's disks."""

    def __init__(self, service: Service, disks: Collection[Disk], inspector: DiskInspector) -> None:
        self._runtime = service.runtime
        self._disks = disks
        self._inspector = inspector

    async def run(self) -> None:
        """Look from time to time, until cancelled."""
        while True:
            await self.look()
            await self._runtime.clock.sleep(self._runtime.settings.storage.look_s)

    async def look(self) -> None:
        """Look at all disks once."""
        node = self._runtime.node
        there = {disk_name(node, facts): facts for facts in await self._inspector.disks()}
        for name, facts in there.items():
            await self._tell(name, facts)
        for disk in self._disks.list():
            if disk.status.node == node and disk.meta.name not in there:
                key, now = self._disks.key_of(disk), self._runtime.clock.now()
                await self._disks.mutate(key, partial(missing, now=now))

    async def _tell(self, name: str, facts: DiskFacts) -> None:
        node, now = self._runtime.node, self._runtime.clock.now()

        def seen(disk: Disk) -> Disk:
            return found(disk, now).with_status(
                node=node,
                facts=facts,
                phase=Phase.READY,
                observed_generation=disk.meta.generation,
            )

        if await self._disks.mutate(DISK.key(None, name), seen) is None:
            meta = Meta(id=new_id("disk"), name=name, created_at=self._runtime.clock.now())
            await self._disks.create(seen(Disk(meta=meta, spec=DiskSpec(), status=DiskStatus())))
