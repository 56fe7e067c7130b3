"""A picture of what a VM's screen shows."""

from trivet.contracts.access import needs
from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import Endpoint, Http, Ref, collection_path
from trivet.contracts.stream import StreamTicket

ENDPOINT = Endpoint(
    service="compute",
    op="vm.screenshot",
    request=Ref,
    response=StreamTicket,
    policy=needs("compute.vm.screenshot"),
    summary="A picture of what a VM's screen shows (PNG).",
    http=Http("GET", collection_path(VM) + "/{name}/screenshot", stream="body", media="image/png"),
    changes=False,
    kind=VM,
)
