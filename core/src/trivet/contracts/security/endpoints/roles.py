"""The common operations on roles."""

from trivet.contracts.endpoint import crud
from trivet.contracts.security.identity import ROLE

CRUD = crud(ROLE)
