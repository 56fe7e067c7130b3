"""The law for disk inspectors: what block devices a node has, what is on them, and how they do."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from trivet.contracts.driver import Driver
from trivet.contracts.model import Model
from trivet.contracts.storage.disk import DiskFacts


class DiskInspector(Driver, Protocol):
    """Looks at block devices; reads only, and says 'unknown' rather than 'blank'."""

    async def disks(self) -> tuple[DiskFacts, ...]:
        """All whole disks of this node that could be given a role."""
        ...


class DiskReading(Model):
    """How a disk does. `present` false: it is not there. `answered` false: a read did not end
    within the bound; `failed`: it ended in an error. `latency_ms`: what requests took on average
    since the last reading (of all who use the disk, else of the read alone; None: not known).
    `errors`: what the kernel has counted since the last reading. `worn_percent`: how much of its
    life an SSD says to have used; `failing`: its own word that it fails, '' if it has none."""

    present: bool = True
    answered: bool = True
    failed: bool = False
    latency_ms: float | None = None
    errors: int = 0
    worn_percent: int = 0
    failing: str = ""


@runtime_checkable
class DiskProbe(Protocol):
    """What an inspector has besides that can tell how disks do while they are used."""

    async def read(self, device: str, within_s: float) -> DiskReading:
        """Read a little of a disk, past all caches, and tell how it does. It answers within
        `within_s` and a little, also where the disk does not: a read that hangs is left to hang,
        and no other is begun on that disk meanwhile."""
        ...
