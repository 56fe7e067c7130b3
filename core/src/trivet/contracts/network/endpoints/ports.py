"""The common operations on ports."""

from trivet.contracts.endpoint import crud
from trivet.contracts.network.port import PORT

CRUD = crud(PORT)
