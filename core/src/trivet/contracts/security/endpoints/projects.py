"""The common operations on projects."""

from trivet.contracts.endpoint import crud
from trivet.contracts.security.identity import PROJECT

CRUD = crud(PROJECT)
