"""Reset a VM, as its reset button would."""

from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import action

ENDPOINT = action(VM, "reset", "Reset a VM, as its reset button would.")
