"""Give a VM one more disk, running or not."""

from pydantic import Field

from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import Ref, action
from trivet.contracts.model import Name


class AttachDiskRequest(Ref):
    """The new disk, as in the spec; asked for again alike, nothing is done."""

    disk: Name
    size_gib: int = Field(ge=1, le=65536)
    replicas: int = Field(default=1, ge=1, le=3)
    pool: Name | None = None
    thin: bool = True


ENDPOINT = action(
    VM, "attach-disk", "Give a VM one more disk, running or not.", request=AttachDiskRequest
)
