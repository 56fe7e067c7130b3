"""The common operations on vms."""

from trivet.contracts.compute.vm import VM
from trivet.contracts.endpoint import crud

CRUD = crud(VM)
