"""The law for hypervisor drivers that can change the hardware of a running guest.

A small Protocol beside `Hypervisor`: a driver that has these methods can, one that lacks them
can't, and what is asked then waits for the guest's next start. Nothing here changes what the
domain starts with: that is defined before each start.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from trivet.contracts.compute.hypervisor import DomainDisk, DomainNic
from trivet.contracts.model import ResourceId

MEMORY_STEP_MIB = 128
"""A Linux guest takes memory in blocks of that size."""


@runtime_checkable
class HotPlug(Protocol):
    """Changes what a running guest has.

    All acts may be repeated. On an unknown domain they raise `Refused(NOT_FOUND)`, on one that
    does not run `Refused(CONFLICT)`.
    """

    async def plug(self, id_: ResourceId, device: DomainDisk | DomainNic) -> None:
        """Give the guest a disk or a card; it is there when this returns, and the guest finds
        it by itself. One that it has (a disk by its name, a card by its MAC) stays as it is. A
        CD-ROM is put into the drive that the guest was started with, in place of one that is in
        it; without a drive that is `Refused(NOT_SUPPORTED)`."""
        ...

    async def unplug(self, id_: ResourceId, device: str) -> None:
        """Take a CD-ROM out of its drive, or ask the guest to let go of a disk (by name) or a card
        (by MAC). It may take long, or
        not do it at all (one that still boots): it is done once `domains()` shows the device no
        more. Asking again, or for what it does not have, is fine."""
        ...

    async def scale(self, id_: ResourceId, vcpus: int, memory_mib: int) -> None:
        """Give the guest that many processors and that much memory, within what its domain was
        made for; more memory comes in whole `MEMORY_STEP_MIB`. What it has more than that it
        keeps: nothing is ever taken from a running guest this way. Raises
        `Refused(NOT_SUPPORTED)` for what goes beyond."""
        ...

    async def resize(self, id_: ResourceId, disk: str, size_bytes: int) -> None:
        """Show the guest that a disk has grown to that size. Raises `Retry` where its server
        does not show that size yet."""
        ...
