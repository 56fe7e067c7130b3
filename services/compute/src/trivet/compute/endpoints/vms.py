"""The common operations on VMs: what a VM names must be there, and what can't change doesn't.

What is not compute's own is asked of its owner, each name once and all at the same time; where
an owner can't be asked, the answer is to try again, never to hope.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from trivet.compute.domain.edits import check_disks, check_nics, named
from trivet.compute.domain.power import edited
from trivet.compute.domain.templates import check as check_template
from trivet.compute.domain.vm_parts import check_names
from trivet.compute.domain.vm_plan import CONTROLLER
from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.vms import CRUD
from trivet.contracts.compute.vm import DiskRequest, Vm, VmSpec
from trivet.contracts.endpoint import Crud, GetRequest, ListRequest, Page
from trivet.contracts.errors import (
    IN_USE,
    INVALID,
    NOT_FOUND,
    REFERENCE,
    FieldError,
    Refused,
    Retry,
)
from trivet.contracts.model import GIB
from trivet.contracts.network.endpoints.networks import CRUD as NETWORKS
from trivet.contracts.resource import AnyResource, Phase
from trivet.contracts.security.endpoints.security_groups import CRUD as GROUPS
from trivet.contracts.storage.endpoints.snapshots import CRUD as SNAPSHOTS
from trivet.contracts.storage.snapshot import Snapshot
from trivet.runtime.crud import Hooks, immutable, serve_crud
from trivet.runtime.service import Service

SNAPSHOTS_LOOKED_AT = 1000
IMMUTABLE_FIELDS = ("image", "origin", "clone", "firmware")


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations on VMs."""

    async def admit(before: Vm | None, after: Vm) -> Vm:
        return await admitted(parts, before, after)

    async def may_delete(vm: Vm) -> None:
        await _check_snapshots(parts, vm)

    serve_crud(service, CRUD, Hooks[Vm](admit, (CONTROLLER,), may_delete))


async def _check_snapshots(parts: Parts, vm: Vm) -> None:
    """Refuse what would stop half-way: disks with snapshots stay. Storage has the last word, and
    where it can't be asked the VM's end waits for it, saying why."""
    asked = ListRequest(project=vm.meta.project, limit=SNAPSHOTS_LOOKED_AT)
    try:
        page: Page[Snapshot] = await parts.runtime.client.call(SNAPSHOTS.list, asked)
    except Retry:
        return
    disks = {disk.volume for disk in vm.status.disks}
    kept = [s.meta.name for s in page.items if disks & set(s.spec.volumes)]
    if kept:
        raise Refused(
            IN_USE,
            f"VM {vm.meta.name} has disks with {len(kept)} snapshots: {', '.join(kept[:5])}",
            hint=f"delete them first: trivet snapshot delete {kept[0]}",
        )


async def admitted(parts: Parts, before: Vm | None, after: Vm) -> Vm:
    """The VM as it is stored, new or changed; raises `Refused` where it can't be."""
    edited(before.spec.power if before else None, after.spec.power)
    spec = named(before.spec if before else None, after.spec)
    after = _asking(before, after, spec)
    check_names(after.meta.name, after.spec)
    check_template(before, after.spec)
    if before is not None:
        immutable(before.spec, after.spec, *IMMUTABLE_FIELDS)
        check_disks(before.spec, after.spec)
        check_nics(before.spec, after.spec)
    unknown = await _unknown(parts, before, after)
    if before is None or before.spec.placement != after.spec.placement:
        unknown += _unknown_nodes(parts, after.spec)
    if unknown:
        told = "; ".join(error.message for error in unknown)
        raise Refused(REFERENCE, told, errors=tuple(unknown))
    return after if before is not None else _with_disk(parts, after)


def _asking(before: Vm | None, after: Vm, spec: VmSpec) -> Vm:
    """`after` with `spec`; its generation is that of `before` where nothing new is asked."""
    same = before is not None and before.spec == spec
    generation = before.meta.generation if before and same else after.meta.generation
    asking = after.model_copy(update={"spec": spec})
    return asking.with_meta(generation=generation)


async def _unknown(parts: Parts, before: Vm | None, vm: Vm) -> list[FieldError]:
    """What the VM names newly and is not there, at compute itself and at other services."""
    project, spec = vm.meta.project, vm.spec
    asked: dict[tuple[str, str], Awaitable[FieldError | None]] = {}
    known = before.spec.nics if before else ()
    if spec.image is not None and before is None:
        asked["image", spec.image] = _image(parts, spec.image, project, "spec.image")
    if spec.iso is not None and (before is None or before.spec.iso != spec.iso):
        asked["iso", spec.iso] = _image(parts, spec.iso, project, "spec.iso")
    if spec.origin is not None and before is None:
        asked["vm", spec.origin] = _origin(parts, spec.origin, project)
    for i, nic in enumerate(spec.nics):
        if nic in known:
            continue
        where = f"spec.nics.{i}"
        named: list[tuple[Crud[Any], str]] = [(NETWORKS, nic.network)]
        named += [(GROUPS, group) for group in nic.security_groups]
        for crud, name in named:
            if (crud.kind.name, name) not in asked:
                asked[crud.kind.name, name] = _asked(parts, crud, name, project, where)
    found = await asyncio.gather(*asked.values())
    return [error for error in found if error is not None]


def _with_disk(parts: Parts, vm: Vm) -> Vm:
    """A VM of an image that asks for no disk gets one of the image's size."""
    if vm.spec.image is None or vm.spec.disks:
        return vm
    # It was read from the store a moment ago, when it was looked whether it is there.
    image = parts.images.get(vm.spec.image, vm.meta.project)
    size_bytes = image.status.virtual_size_bytes if image else None
    if image is not None and image.status.phase is Phase.FAILED:
        told = image.status.condition("Imported")
        why = f": {told.message}" if told else ""
        hint = f"`trivet image show {vm.spec.image}`; delete it, and import it anew"
        raise Refused(INVALID, f"image {vm.spec.image} could not be imported{why}", hint=hint)
    if size_bytes is None:
        progress = image.status.progress_pct if image else 0
        detail = f"image {vm.spec.image} is {progress} % imported: the disk's size is not known yet"
        raise Refused(INVALID, detail, hint="wait for the image, or say how large disks[0] is")
    disk = DiskRequest(size_gib=-(-size_bytes // GIB))
    return vm.model_copy(update={"spec": vm.spec.model_copy(update={"disks": (disk,)})})


async def _origin(parts: Parts, name: str, project: str | None) -> FieldError | None:
    origin = await parts.vms.fresh(parts.vms.kind.key(project, name))
    if origin is not None and origin.meta.deleting_at is None:
        return None
    return FieldError(where="spec.origin", message=f"there is no VM {name}")


async def _image(parts: Parts, name: str, project: str | None, where: str) -> FieldError | None:
    image = await parts.images.fresh(parts.images.kind.key(project, name))
    if image is not None and image.meta.deleting_at is None:
        return None
    known = ", ".join(i.meta.name for i in parts.images.list(project)[:10]) or "none yet"
    return FieldError(where=where, message=f"there is no image {name}", accepted=f"one of: {known}")


async def _asked(
    parts: Parts, crud: Crud[Any], name: str, project: str | None, where: str
) -> FieldError | None:
    """Ask the owner of a kind whether that one is there; raises `Retry` where it can't say."""
    try:
        found: AnyResource = await parts.runtime.client.call(
            crud.get, GetRequest(project=project, name=name)
        )
    except Refused as error:
        if error.code is not NOT_FOUND:
            raise
        return FieldError(where=where, message=f"there is no {crud.kind.name} {name}")
    if found.meta.deleting_at is not None:
        return FieldError(where=where, message=f"{crud.kind.name} {name} is being deleted")
    return None


def _unknown_nodes(parts: Parts, spec: VmSpec) -> list[FieldError]:
    known = {node.meta.name for node in parts.nodes.list()}
    return [
        FieldError(
            where=f"spec.placement.nodes.{i}",
            message=f"there is no node {name}",
            accepted=f"one of: {', '.join(sorted(known))}",
        )
        for i, name in enumerate(spec.placement.nodes)
        if name not in known
    ]
