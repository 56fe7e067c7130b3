"""The common operations on disks."""

from trivet.contracts.endpoint import crud
from trivet.contracts.storage.disk import DISK

CRUD = crud(DISK, verbs=("list", "get", "edit"))
