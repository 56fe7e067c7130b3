"""Makes and removes the volumes and ports of a VM, at the services that own them.

Both are repeatable: what is there under the VM's ownership is taken as it is, what is there
under another's is a refusal, and what goes is found by its owner and not by its name.

Volumes are waited for, ports of a VM that no node has yet are not: its node's agent attaches the
disks while the node is still making the ports, and looks at those before it starts the guest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from trivet.compute.domain.vm_parts import (
    Part,
    Sources,
    change_of,
    missing_iso,
    origin_request,
    port_requests,
    to_make,
    volume_name,
    volume_requests,
)
from trivet.contracts.compute.vm import Vm, VmDisk, VmNic
from trivet.contracts.endpoint import (
    CreateRequest,
    Crud,
    DeleteRequest,
    EditRequest,
    GetRequest,
    ListRequest,
    Page,
)
from trivet.contracts.errors import NAME_TAKEN, NOT_FOUND, Refused, TrivetError
from trivet.contracts.network.endpoints.ports import CRUD as PORTS
from trivet.contracts.network.port import PortStatus
from trivet.contracts.resource import AnyResource, Phase
from trivet.contracts.storage.endpoints.snapshots import CRUD as SNAPSHOTS
from trivet.contracts.storage.endpoints.volumes import CRUD as VOLUMES
from trivet.runtime.call import Client

SETTLE_S = 3.0
PAGE = 1000


class VmParts:
    """The parts of VMs."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def ensure(
        self, vm: Vm, sources: Sources, node: str, *, more: bool = False
    ) -> tuple[Part, ...]:
        """Make what is missing, and change what is not as asked; how the parts are then, volumes
        first, in order. `more`: of a VM that has its parts, those alone that it lacks."""
        first = not vm.status.disks and not vm.status.nics
        lacks = to_make(vm)
        if (no_cd := missing_iso(vm, sources.iso)) and no_cd.name in lacks:
            return (no_cd,)
        requests: list[tuple[Crud[Any], CreateRequest[Any]]] = [
            *((VOLUMES, request) for request in volume_requests(vm, sources)),
            *((PORTS, request) for request in port_requests(vm, node)),
        ]
        asked = (
            self._one(crud, r, first, waits=more or crud is VOLUMES)
            for crud, r in requests
            if not more or r.meta.name in lacks
        )
        return tuple(await asyncio.gather(*asked))

    async def cut_origin(self, vm: Vm, origin: Vm | None) -> Part | None:
        """See to the snapshot of its origin's disks that a clone's begin as, while it lacks some;
        the snapshot as a part of it, or None: it needs none."""
        if await self._has_volumes(vm):
            return None
        if origin is None or origin.meta.deleting_at is not None:
            told = f"there is no VM {vm.spec.origin} to be a clone of"
            return Part("vm", vm.spec.origin or "", ready=False, refused=True, message=told)
        request = origin_request(vm, origin)
        return None if request is None else await self._one(SNAPSHOTS, request, True, waits=True)

    async def drop_origin(self, vm: Vm) -> None:
        """A clone that has its disks needs the snapshot no more: they stand for themselves."""
        for snapshot in await self._owned(SNAPSHOTS, vm):
            if snapshot.meta.deleting_at is None:
                request = DeleteRequest(project=vm.meta.project, name=snapshot.meta.name)
                await self._client.call(SNAPSHOTS.delete, request)

    async def _has_volumes(self, vm: Vm) -> bool:
        there = {v.meta.name for v in await self._owned(VOLUMES, vm)}
        return all(volume_name(vm.meta.name, d.name) in there for d in vm.spec.disks)

    async def _one(
        self, crud: Crud[Any], request: CreateRequest[Any], first: bool, *, waits: bool
    ) -> Part:
        """One part; one that is not waited for is taken as it is made, unless that failed."""
        kind, name = crud.kind.name, request.meta.name
        settle_s = SETTLE_S if waits else 0.0
        try:
            found = await self._create_and_get(crud, request, first, settle_s)
        except Refused as error:
            return Part(kind, name, ready=False, refused=True, message=_told(error))
        except TrivetError as error:
            return Part(kind, name, ready=False, message=error.detail)
        assert request.owner is not None
        owner = found.meta.owner
        if owner is None or owner.id != request.owner.id:
            taken = f"the name is taken by another {kind}"
            return Part(kind, name, ready=False, refused=True, message=taken)
        try:
            return _part(kind, await self._changed(crud, found, request, settle_s), waits=waits)
        except Refused as error:
            return Part(kind, name, ready=False, refused=True, message=_told(error))
        except TrivetError as error:
            return Part(kind, name, ready=False, message=error.detail)

    async def _changed(
        self,
        crud: Crud[Any],
        found: AnyResource,
        request: CreateRequest[Any],
        settle_s: float,
    ) -> AnyResource:
        """The part, asked to have what can change in place."""
        change = change_of(found.spec, request.spec)
        if not change or found.meta.deleting_at is not None:
            return found
        name, project = request.meta.name, request.meta.project
        await self._client.call(crud.edit, EditRequest(project=project, name=name, spec=change))
        return await self._get(crud, GetRequest(project=project, name=name, settle_s=settle_s))

    async def _create_and_get(
        self, crud: Crud[Any], request: CreateRequest[Any], first: bool, settle_s: float
    ) -> AnyResource:
        """The part as it is, made if it is not there; waits so long for it to settle."""
        asked = GetRequest(project=request.meta.project, name=request.meta.name, settle_s=settle_s)
        if not first:
            try:
                return await self._get(crud, asked)
            except Refused as error:
                if error.code is not NOT_FOUND:
                    raise
        try:
            made: AnyResource = await self._client.call(
                crud.create, request.model_copy(update={"settle_s": settle_s})
            )
        except Refused as error:
            if error.code is not NAME_TAKEN:
                raise
            return await self._get(crud, asked)
        return made

    async def _get(self, crud: Crud[Any], asked: GetRequest) -> AnyResource:
        found: AnyResource = await self._client.call(crud.get, asked)
        return found

    async def remove(self, vm: Vm) -> str:
        """Delete all parts; what remains and why, as a sentence ('' when all are gone)."""
        kinds = (VOLUMES, PORTS, *((SNAPSHOTS,) if vm.spec.origin else ()))
        left = await asyncio.gather(*(self._remove_all(crud, vm) for crud in kinds))
        return "; ".join(told for parts in left for told in parts)

    async def remove_some(self, vm: Vm, parts: Iterable[VmDisk | VmNic]) -> dict[str, str]:
        """Delete these parts of a VM; by name, what remains of each and why ('' where it is
        gone, or is somebody else's by now)."""
        found = {}
        for part in parts:
            crud, name = _where(part)
            found[name] = await self._remove_one(crud, vm, name)
        return found

    async def _remove_one(self, crud: Crud[Any], vm: Vm, name: str) -> str:
        asked = GetRequest(project=vm.meta.project, name=name)
        try:
            part = await self._get(crud, asked)
            if part.meta.owner is None or part.meta.owner.id != vm.meta.id:
                return ""
            if part.meta.deleting_at is None:
                request = DeleteRequest(project=vm.meta.project, name=name)
                await self._client.call(crud.delete, request)
            await self._get(crud, asked)
        except Refused as error:
            return "" if error.code is NOT_FOUND else f"{crud.kind.name} {name}: {error.detail}"
        except TrivetError as error:
            return f"{crud.kind.name} {name}: {error.detail}"
        return f"{crud.kind.name} {name}: is being deleted"

    async def _remove_all(self, crud: Crud[Any], vm: Vm) -> list[str]:
        errors: dict[str, str] = {}
        for part in await self._owned(crud, vm):
            name = part.meta.name
            try:
                if part.meta.deleting_at is None:
                    request = DeleteRequest(project=part.meta.project, name=name)
                    await self._client.call(crud.delete, request)
            except Refused as error:
                if error.code is not NOT_FOUND:
                    errors[name] = error.detail
        left = [part.meta.name for part in await self._owned(crud, vm)]
        return [f"{crud.kind.name} {n}: {errors.get(n, 'is being deleted')}" for n in left]

    async def _owned(self, crud: Crud[Any], vm: Vm) -> list[AnyResource]:
        request = ListRequest(project=vm.meta.project, owner=vm.meta.id, limit=PAGE)
        page: Page[Any] = await self._client.call(crud.list, request)
        return list(page.items)


def _where(part: VmDisk | VmNic) -> tuple[Crud[Any], str]:
    return (VOLUMES, part.volume) if isinstance(part, VmDisk) else (PORTS, part.port)


def _part(kind: str, found: AnyResource, *, waits: bool) -> Part:
    phase, status = found.status.phase, found.status
    enough = (Phase.READY, Phase.DEGRADED, *(() if waits else (Phase.PENDING,)))
    said = "; ".join(c.message for c in status.conditions if c.status != "true" and c.message)
    return Part(
        kind,
        found.meta.name,
        ready=phase in enough and found.meta.deleting_at is None,
        refused=phase is Phase.FAILED,
        message=said or f"is {phase}",
        mac=status.mac if isinstance(status, PortStatus) else None,
        addresses=status.addresses if isinstance(status, PortStatus) else (),
    )


def _told(error: TrivetError) -> str:
    return error.detail + (f" ({error.hint})" if error.hint else "")
