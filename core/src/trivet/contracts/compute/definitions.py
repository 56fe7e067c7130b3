"""The law for hypervisor drivers that see when somebody else changed what a domain starts with.

A small Protocol beside `Hypervisor`. What a guest starts with is defined anew before each start of
ours; but others' tools start domains, too, and what they changed should be told while it is fresh.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from trivet.contracts.model import ResourceId


@runtime_checkable
class Definitions(Protocol):
    """Looks after definitions."""

    async def altered(self) -> tuple[ResourceId, ...]:
        """The domains whose next start would not be as `define` was last told."""
        ...

    async def restore(self, id_: ResourceId) -> None:
        """Define such a domain as it was; what runs is not touched. One that is as it should be
        stays so; an unknown one is `Refused(NOT_FOUND)`."""
        ...
