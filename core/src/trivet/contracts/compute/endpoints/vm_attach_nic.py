"""Give a VM one more network card, running or not."""

from pydantic import Field

from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import Ref, action
from trivet.contracts.model import Name
from trivet.contracts.network.port import PortQos


class AttachNicRequest(Ref):
    """The new card, as in the spec. With a `nic` name that is there alike nothing is done; left
    out, a name is given."""

    network: Name
    nic: Name | None = None
    address: str | None = Field(default=None, max_length=45)
    security_groups: tuple[Name, ...] = ("default",)
    qos: PortQos | None = None


ENDPOINT = action(
    VM, "attach-nic", "Give a VM one more network card, running or not.", request=AttachNicRequest
)
