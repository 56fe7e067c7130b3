"""Start a VM."""

from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import action

ENDPOINT = action(VM, "start", "Start a VM.")
