"""The law for hypervisor drivers that can have a running guest give memory back for a while.

A small Protocol beside `Hypervisor`, over the balloon in the guest: it takes memory from the guest
and the host has it. The guest obeys as far as it can and as fast as it likes, and keeps what its
domain was made with as its most. A new run begins with all of it.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from trivet.contracts.model import Model, ResourceId


class HostMemory(Model):
    """What a node has, and what of it could be had without swapping."""

    total_mib: int
    available_mib: int


@runtime_checkable
class Balloon(Protocol):
    """Moves memory between guests and their node."""

    async def host_memory(self) -> HostMemory:
        """The node's memory now."""
        ...

    async def set_target(self, id_: ResourceId, memory_mib: int) -> None:
        """Ask the running guest to use that much; all that it was made with gives all back. May be
        repeated; `stats` tell what it has. An unknown domain is `Refused(NOT_FOUND)`, one that
        does not run `Refused(CONFLICT)`, more than it has `Refused(INVALID)`."""
        ...
