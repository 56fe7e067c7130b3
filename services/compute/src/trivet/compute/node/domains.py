"""Looks at the hypervisor, shared by all who want one at the same time.

A look that began before one asked may be older than one's own last act, so a newcomer waits
for the next; but all newcomers share that one, which looks at what they ask for and no more.
Many VMs together so cost one look, and a look costs what concerns those who look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from trivet.contracts.compute.hypervisor import DomainState, Hypervisor
from trivet.contracts.errors import DRIVER_FAILED, Retry
from trivet.contracts.model import ResourceId

LOOK_TIMEOUT_S = 20.0

Found = Mapping[ResourceId, DomainState]


class Domains:
    """The domains of this node."""

    def __init__(self, hypervisor: Hypervisor) -> None:
        self._hypervisor = hypervisor
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[Found] | None = None
        self._asked: set[ResourceId] | None = set()

    async def look(self) -> Found:
        """All domains, as they are at some time after this call. Raises `TrivetError`."""
        self._asked = None
        return await self._shared()

    async def look_at(self, id_: ResourceId) -> DomainState | None:
        """The domain of that id, likewise; None: there positively is none."""
        if self._asked is not None:
            self._asked.add(id_)
        return (await self._shared()).get(id_)

    async def _shared(self) -> Found:
        if self._next is None:
            self._next = asyncio.create_task(self._look())
        return await asyncio.shield(self._next)

    async def _look(self) -> Found:
        async with self._lock:
            asked, self._asked, self._next = self._asked, set(), None
            try:
                async with asyncio.timeout(LOOK_TIMEOUT_S):
                    return {d.id: d for d in await self._hypervisor.domains(asked)}
            except TimeoutError as error:
                detail = f"the hypervisor has not answered for {LOOK_TIMEOUT_S:.0f} s"
                raise Retry(DRIVER_FAILED, detail) from error
