"""Make a VM that is like another one, with disks that begin as its disks are now."""

from trivet.contracts.compute.vm import VM, WantedPower
from trivet.contracts.endpoint import Ref, action
from trivet.contracts.model import Name
from trivet.contracts.storage.volume import CloneMode


class CloneRequest(Ref):
    """`new` is the new VM's name. `mode`: `linked` disks share unchanged blocks with the old ones
    and are there at once, `full` ones are copied. `power` is what the new one is to have."""

    new: Name
    mode: CloneMode = CloneMode.LINKED
    power: WantedPower = WantedPower.RUNNING


ENDPOINT = action(
    VM,
    "clone",
    "Make a VM like this one: its disks begin as they are now, its addresses are new.",
    request=CloneRequest,
)
