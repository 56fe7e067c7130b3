"""Take a snapshot of all disks of a VM, at one point in time."""

from trivet.contracts.access import needs
from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import Endpoint, Http, Ref, collection_path
from trivet.contracts.model import Name
from trivet.contracts.storage.snapshot import Snapshot


class VmSnapshotRequest(Ref):
    """`snapshot`: its name; None: the VM's, with the time (UTC)."""

    snapshot: Name | None = None


ENDPOINT = Endpoint(
    service="compute",
    op="vm.snapshot",
    request=VmSnapshotRequest,
    response=Snapshot,
    policy=needs("compute.vm.snapshot"),
    summary="Take a snapshot of all disks of a VM, at one point in time; it runs on. Its file "
    "systems are at rest then, if an agent answers in the guest.",
    http=Http("POST", collection_path(VM) + "/{name}:snapshot"),
    timeout_s=60.0,
    kind=VM,
)
