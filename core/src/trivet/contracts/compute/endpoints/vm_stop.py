"""Stop a VM: the guest is asked by ACPI, and after a while its power is cut."""

from pydantic import Field

from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import Ref, action

LONGEST_GRACE_S = 3600


class StopRequest(Ref):
    """`force` cuts the power at once; else the guest has `grace_s` seconds."""

    force: bool = False
    grace_s: int = Field(default=60, ge=1, le=LONGEST_GRACE_S)


ENDPOINT = action(VM, "stop", "Stop a VM: ask its guest, then cut its power.", request=StopRequest)
