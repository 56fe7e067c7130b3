"""A VM's console over a WebSocket: its serial line, or its screen (RFB)."""

from trivet.contracts.access import needs
from trivet.contracts.compute.console import ConsoleRequest
from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import Endpoint, Http, collection_path
from trivet.contracts.stream import StreamTicket

ENDPOINT = Endpoint(
    service="compute",
    op="vm.console",
    request=ConsoleRequest,
    response=StreamTicket,
    policy=needs("compute.vm.console"),
    summary="Join a VM's console: its serial line, or its screen (kind=vnc).",
    http=Http("GET", collection_path(VM) + "/{name}/console", 101, stream="websocket"),
    kind=VM,
)
