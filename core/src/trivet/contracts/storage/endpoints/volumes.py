"""The common operations on volumes."""

from trivet.contracts.endpoint import crud
from trivet.contracts.storage.volume import VOLUME

CRUD = crud(VOLUME)
