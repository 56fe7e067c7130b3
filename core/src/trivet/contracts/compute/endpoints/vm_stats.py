"""What a running VM uses: processor time, memory, and counters of its disks and cards."""

from trivet.contracts.access import needs
from trivet.contracts.compute.stats import GuestStats
from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import Endpoint, Http, Ref, collection_path

ENDPOINT = Endpoint(
    service="compute",
    op="vm.stats",
    request=Ref,
    response=GuestStats,
    policy=needs("compute.vm.stats"),
    summary="What a running VM uses: processor time, memory, disks, network cards.",
    http=Http("GET", collection_path(VM) + "/{name}/stats"),
    changes=False,
    kind=VM,
)
