"""The error codes of the compute service."""

from trivet.contracts.errors import code

BOOT_DISK = code("vm.boot_disk", 422, "A VM keeps the disk that it boots from")
