"""Pause a VM: its processors stop, its memory stays."""

from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import action

ENDPOINT = action(VM, "suspend", "Pause a VM: its processors stop, its memory stays.")
