"""The end of what a VM's serial console has shown."""

from pydantic import Field

from trivet.contracts.access import needs
from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import Endpoint, Http, Ref, collection_path
from trivet.contracts.model import Model


class LogRequest(Ref):
    """`max_bytes`: how much of the end (bytes)."""

    max_bytes: int = Field(default=65536, ge=1, le=262144)


class LogResponse(Model):
    """`text` with what is not UTF-8 replaced."""

    text: str


ENDPOINT = Endpoint(
    service="compute",
    op="vm.log",
    request=LogRequest,
    response=LogResponse,
    policy=needs("compute.vm.log"),
    summary="Show the end of what a VM's serial console has shown.",
    http=Http("GET", collection_path(VM) + "/{name}/log"),
    changes=False,
    kind=VM,
)
