"""What to do with a domain on this node that is no VM of this node.

Absence in the store proves nothing: the store may have been put back to an older state, and
what runs is then the only copy. So a domain goes only where the store positively says so: by
an assignment to this node whose VM is gone (it was deleted while the node was silent), or by
a VM that has since been started elsewhere. Anything else is told and left alone.
"""

from __future__ import annotations

from enum import StrEnum

from trivet.contracts.compute.hypervisor import DomainState
from trivet.contracts.compute.vm import Vm


class Fate(StrEnum):
    """What becomes of a domain."""

    OURS = "ours"
    REMOVE = "remove"
    REPORT = "report"


def fate(domain: DomainState, vm: Vm | None, node: str, assigned: bool) -> tuple[Fate, str]:
    """The fate of `domain` on `node`, and why. `vm` is the VM of its id in the store, and
    `assigned` whether the store assigns that id to this node."""
    if vm is None and assigned:
        return Fate.REMOVE, "it was deleted while this node was silent"
    if vm is None:
        return Fate.REPORT, "the store knows no such VM, and not that it was deleted"
    if vm.status.node == node:
        return Fate.OURS, "it is a VM of this node"
    if vm.status.node is not None and vm.status.epoch > domain.epoch:
        return Fate.REMOVE, f"it has been started on {vm.status.node} since, under a later epoch"
    return Fate.REPORT, f"the store has it on {vm.status.node or 'no node'}"
