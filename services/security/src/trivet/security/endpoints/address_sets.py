"""The common operations on address sets. One that a rule names can't be deleted."""

from __future__ import annotations

from trivet.contracts.security.address_set import AddressSet
from trivet.contracts.security.endpoints.address_sets import CRUD
from trivet.contracts.security.group import SET_PREFIX
from trivet.runtime.crud import Hooks, serve_crud
from trivet.runtime.service import Service
from trivet.security.endpoints.security_groups import in_a_project, not_named
from trivet.security.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations."""

    async def admit(before: AddressSet | None, after: AddressSet) -> AddressSet:
        if before is None:
            in_a_project(parts, after.meta.project)
        return after

    async def may_delete(addresses: AddressSet) -> None:
        not_named(parts, addresses.meta.project or "", f"{SET_PREFIX}{addresses.meta.name}")

    serve_crud(service, CRUD, Hooks(admit, may_delete=may_delete))
