"""The common operations on pools."""

from trivet.contracts.endpoint import crud
from trivet.contracts.storage.pool import POOL

CRUD = crud(POOL)
