"""Take the CD-ROM out of a VM's drive."""

from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import action

ENDPOINT = action(VM, "eject", "Take the CD-ROM out of a VM's drive, running or not.")
