"""The common operations on tokens; making one is an operation of its own."""

from trivet.contracts.endpoint import crud
from trivet.contracts.security.identity import TOKEN

CRUD = crud(TOKEN, verbs=("list", "get", "delete"))
