"""Take a network card from a VM; its addresses are free again."""

from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import Ref, action
from trivet.contracts.model import Name


class DetachNicRequest(Ref):
    """Which card, by its name."""

    nic: Name


ENDPOINT = action(
    VM, "detach-nic", "Take a network card from a VM, running or not.", request=DetachNicRequest
)
