"""The common operations on nodes. Nodes make their own records; a person may delete one that
is silent, which says that nothing runs there any more."""

from __future__ import annotations

from trivet.compute.domain.capacity import allocatable_memory_mib, summed
from trivet.compute.node.registration import FINALIZER
from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.nodes import CRUD
from trivet.contracts.compute.node import Node
from trivet.contracts.errors import IN_USE, Refused
from trivet.contracts.resource import Phase
from trivet.runtime.crud import Hooks, serve_crud
from trivet.runtime.service import Service


def wire(service: Service, parts: Parts) -> None:
    """Answer `node.list`, `get`, `edit`, `delete`."""
    hooks = Hooks[Node](admit=admit, finalizers=(FINALIZER,), may_delete=may_delete)
    serve_crud(service, CRUD, hooks)


async def admit(before: Node | None, after: Node) -> Node:
    """What can be promised follows the spec at once."""
    memory_mib = allocatable_memory_mib(after.spec, after.status.inventory)
    return summed(
        after.with_status(
            allocatable_memory_mib=memory_mib, observed_generation=after.meta.generation
        )
    )


async def may_delete(node: Node) -> None:
    """A node that is heard from would be back at once, and its guests run."""
    if node.status.phase is Phase.READY:
        raise Refused(
            IN_USE,
            f"node {node.meta.name} is up",
            hint="delete its VMs and stop Trivet there; it can be deleted once it is silent",
        )
