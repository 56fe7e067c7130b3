"""What a guest may be told of its own VM, asked by the network's metadata service."""

from collections.abc import Mapping

from trivet.contracts.access import INTERNAL
from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import Endpoint, Ref
from trivet.contracts.model import Model, ResourceId


class InstanceDataRequest(Ref):
    """The VM of that name, if its id is `id`: a namesake's data is not told."""

    id: ResourceId


class InstanceData(Model):
    """A VM as its guest sees it; `user_data` is given as it was, for the guest to read."""

    id: ResourceId
    name: str
    project: str
    labels: Mapping[str, str] = {}
    node: str | None = None
    user_data: str | None = None
    ssh_keys: tuple[str, ...] = ()


ENDPOINT = Endpoint(
    service="compute",
    op="vm.instance-data",
    request=InstanceDataRequest,
    response=InstanceData,
    policy=INTERNAL,
    summary="What a guest may be told of its own VM.",
    changes=False,
    kind=VM,
)
