"""The common operations on users."""

from trivet.contracts.endpoint import crud
from trivet.contracts.security.identity import USER

CRUD = crud(USER)
