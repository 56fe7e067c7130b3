"""Keeps each security group's `status.ports`: how many ports stand behind it."""

from __future__ import annotations

import logging
from functools import partial

from trivet.contracts.errors import TrivetError
from trivet.contracts.security.group import SecurityGroup
from trivet.runtime.collection import Collection
from trivet.runtime.service import Runtime
from trivet.security.port_list import ports_behind

log = logging.getLogger(__name__)


class PortCounts:
    """Counts from time to time; the number is for people, nothing is decided by it."""

    def __init__(self, runtime: Runtime, groups: Collection[SecurityGroup]) -> None:
        self._runtime = runtime
        self._groups = groups

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            try:
                await self._count()
            except TrivetError as error:
                log.info("ports can't be counted now: %s", error)
            await self._runtime.clock.sleep(self._runtime.settings.security.look_s)

    async def _count(self) -> None:
        counts = await ports_behind(self._runtime.client, None)
        for group in self._groups.list():
            ports = counts[group.meta.project or "", group.meta.name]
            if group.status.ports != ports:
                key = self._groups.key_of(group)
                await self._groups.mutate(key, partial(_counted, ports=ports))


def _counted(group: SecurityGroup, ports: int) -> SecurityGroup:
    return group.with_status(ports=ports)
