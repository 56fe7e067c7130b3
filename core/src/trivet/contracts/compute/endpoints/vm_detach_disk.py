"""Take a disk from a VM, and delete its volume."""

from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import Ref, action
from trivet.contracts.model import Name


class DetachDiskRequest(Ref):
    """Which disk. Its volume was made for it and goes with it: `delete` says that this is known,
    and without it the request is refused."""

    disk: Name
    delete: bool = False


ENDPOINT = action(
    VM,
    "detach-disk",
    "Take a disk from a VM, running or not, and delete its volume.",
    request=DetachDiskRequest,
)
