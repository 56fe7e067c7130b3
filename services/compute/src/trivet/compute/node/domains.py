"""Looks at the hypervisor, shared by all who want one at the same time.

A look that began before one asked may be older than one's own last act, so a newcomer waits
for the next; but all newcomers share that one. Many VMs together so cost one look, not many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from trivet.contracts.compute.hypervisor import DomainState, Hypervisor
from trivet.contracts.errors import DRIVER_FAILED, Retry
from trivet.contracts.model import ResourceId

LOOK_TIMEOUT_S = 20.0


class Domains:
    """The domains of this node."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[Mapping[ResourceId, DomainState]] | None = None

    async def look(self) -> Mapping[ResourceId, DomainState]:
        """All domains, as they are at some time after this call. Raises `TrivetError`."""
        if self._next is None:
            self._next = asyncio.create_task(self._look())
        return await asyncio.shield(self._next)

    async def _look(self) -> Mapping[ResourceId, DomainState]:
        async with self._lock:
            self._next = None
            try:
                async with asyncio.timeout(LOOK_TIMEOUT_S):
                    return {d.id: d for d in await self._hypervisor.domains()}
            except TimeoutError as error:
                detail = f"the hypervisor has not answered for {LOOK_TIMEOUT_S:.0f} s"
                raise Retry(DRIVER_FAILED, detail) from error
