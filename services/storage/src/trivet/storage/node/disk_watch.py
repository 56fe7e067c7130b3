"""The duty of a node's agent towards the disks it uses: read them, judge them, tell it.

What was read is this process's own memory; a new one begins to judge anew, and knows from the
store what was isolated or failed before. A disk that is not there any more is missing at once:
it may come back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial

from trivet.contracts.storage.disk import Disk, DiskHealth, DiskRole
from trivet.contracts.storage.inspector import DiskInspector, DiskProbe, DiskReading
from trivet.runtime.collection import Collection
from trivet.runtime.service import Service
from trivet.storage.domain.disk_health import LOOK_S, Limits, Sample, find
from trivet.storage.domain.disks import answering, judged
from trivet.storage.node.disks import DiskAgent

log = logging.getLogger(__name__)


class DiskWatch:
    """Watches this node's disks that have a role."""

    def __init__(
        self,
        service: Service,
        disks: Collection[Disk],
        inspector: DiskInspector,
        agent: DiskAgent,
    ) -> None:
        self._runtime = service.runtime
        self._disks = disks
        self._inspector = inspector
        self._agent = agent
        settings = service.runtime.settings.storage
        self._limits = Limits(
            slow_ms=settings.disk_slow_ms,
            isolate_ms=settings.disk_isolate_ms,
            window_s=settings.disk_window_s,
            stuck_s=settings.disk_stuck_s,
        )
        self._samples: dict[str, deque[Sample]] = {}
        self._were: dict[str, DiskHealth] = {}

    async def run(self) -> None:
        """Look from time to time, until cancelled."""
        if not isinstance(self._inspector, DiskProbe):
            log.info("%s can't tell how disks do", self._inspector.name)
            await asyncio.Event().wait()
        while True:
            await self.look()
            await self._runtime.clock.sleep(LOOK_S)

    async def look(self) -> None:
        """Read all disks once, each for itself: one that hangs holds up no other."""
        mine = [
            disk
            for disk in self._disks.list()
            if disk.status.node == self._runtime.node and disk.spec.role is not DiskRole.NONE
        ]
        await asyncio.gather(*(self._look_at(disk) for disk in mine))

    async def _look_at(self, disk: Disk) -> None:
        probe, facts = self._inspector, disk.status.facts
        if facts is None or not isinstance(probe, DiskProbe):
            return
        reading = await probe.read(facts.device, self._limits.stuck_s)
        name = disk.meta.name
        if not reading.present:
            self._samples.pop(name, None)
            await self._agent.look()
            return
        if self._were.get(name) is not disk.status.health and disk.status.health is DiskHealth.OK:
            self._samples.pop(name, None)  # it was taken back: what was before does not count
        self._were[name] = disk.status.health
        samples = self._samples.setdefault(name, deque(maxlen=self._limits.looks))
        samples.append(_sample(reading))
        if disk.status.answers != reading.answered:
            # At once: guests wait for what lies on it, and need not where there is another copy.
            log.warning("disk %s %s", name, "answers" if reading.answered else "does not answer")
            heard = partial(answering, answers=reading.answered)
            await self._disks.mutate(self._disks.key_of(disk), heard)
        found = find(tuple(samples), disk.status.health, self._limits)
        if found is not None and found.health is not disk.status.health:
            log.warning("disk %s is %s: %s", name, found.health, found.why)
            now = self._runtime.clock.now()
            self._were[name] = found.health
            change = partial(judged, health=found.health, why=found.why, now=now)
            await self._disks.mutate(self._disks.key_of(disk), change)


def _sample(reading: DiskReading) -> Sample:
    return Sample(
        latency_ms=reading.latency_ms,
        stuck=not reading.answered,
        failed=reading.failed,
        errors=reading.errors,
        worn_percent=reading.worn_percent,
        failing=reading.failing,
    )
