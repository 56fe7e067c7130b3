"""The common operations on images."""

from __future__ import annotations

from trivet.compute.domain.image_plan import CONTROLLER, volume_name
from trivet.compute.domain.vm_parts import NAME_LENGTH
from trivet.compute.parts import Parts
from trivet.contracts.compute.endpoints.images import CRUD
from trivet.contracts.compute.image import Image
from trivet.contracts.errors import IN_USE, INVALID, FieldError, Refused
from trivet.contracts.resource import Phase
from trivet.runtime.crud import Hooks, immutable, serve_crud
from trivet.runtime.service import Service

NAMED_USERS = 5


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations on images."""

    async def may_delete(image: Image) -> None:
        """One from which VMs have linked clones, or wait to have one, stays."""
        users = [
            vm.meta.name
            for vm in parts.vms.list(image.meta.project)
            if vm.spec.image == image.meta.name and vm.spec.clone == "linked"
        ]
        if users:
            named = ", ".join(users[:NAMED_USERS])
            raise Refused(
                IN_USE,
                f"image {image.meta.name} is shared by {len(users)} VMs: {named}",
                hint="delete them first, or clone in full from now on (clone: full)",
            )

    hooks = Hooks[Image](admit=admit, finalizers=(CONTROLLER,), may_delete=may_delete)
    serve_crud(service, CRUD, hooks)


async def admit(before: Image | None, after: Image) -> Image:
    """Only an import that failed can be asked for anew, with another spec."""
    if len(volume_name(after.meta.name)) > NAME_LENGTH:
        accepted = f"at most {NAME_LENGTH - len(volume_name(''))} characters"
        error = FieldError(where="meta.name", message="too long", accepted=accepted)
        raise Refused(INVALID, "the name of its volume would be too long", errors=(error,))
    if before is None or before.status.phase is Phase.FAILED:
        return after
    immutable(before.spec, after.spec, "source", "sha256", "replicas")
    return after.with_status(observed_generation=after.meta.generation)
