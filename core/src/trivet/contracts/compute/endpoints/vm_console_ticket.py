"""A ticket with which a browser, which can't send a token with a WebSocket, joins a console."""

from trivet.contracts.access import needs
from trivet.contracts.compute.console import ConsoleRequest, ConsoleTicket
from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import Endpoint, Http, collection_path

ENDPOINT = Endpoint(
    service="compute",
    op="vm.console-ticket",
    request=ConsoleRequest,
    response=ConsoleTicket,
    policy=needs("compute.vm.console"),
    summary="Make a ticket that joins a VM's console once, without a token.",
    http=Http("POST", collection_path(VM) + "/{name}:console-ticket"),
    kind=VM,
)
