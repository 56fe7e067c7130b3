"""The common operations on snapshots."""

from trivet.contracts.endpoint import crud
from trivet.contracts.storage.snapshot import SNAPSHOT

CRUD = crud(SNAPSHOT)
