"""Let a paused VM run on."""

from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import action

ENDPOINT = action(VM, "resume", "Let a paused VM run on.")
