"""The law for hypervisor drivers that can change how running guests get their processors.

A small Protocol beside `Hypervisor`: with a driver that lacks it, what is asked counts from the
guest's next start. Whether shares and limits have any effect on a node is in its inventory
(`cpu_control`): pinning always has.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from trivet.contracts.compute.hypervisor import DomainTuning
from trivet.contracts.model import ResourceId


@runtime_checkable
class CpuControl(Protocol):
    """Weighs, limits and pins running guests."""

    async def tune(self, id_: ResourceId, tuning: DomainTuning) -> None:
        """Have the running domain get its processors so, all of it, whatever it was before; its
        next start is not touched. May be repeated. An unknown domain is `Refused(NOT_FOUND)`, one
        that does not run `Refused(CONFLICT)`; shares or a limit on a node without `cpu_control`
        `Refused(NOT_SUPPORTED)`."""
        ...
