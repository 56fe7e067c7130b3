"""The law for disk inspectors: what block devices a node has and what is on them."""

from __future__ import annotations

from typing import Protocol

from trivet.contracts.driver import Driver
from trivet.contracts.storage.disk import DiskFacts


class DiskInspector(Driver, Protocol):
    """Looks at block devices; reads only, and says 'unknown' rather than 'blank'."""

    async def disks(self) -> tuple[DiskFacts, ...]:
        """All whole disks of this node that could be given a role."""
        ...
