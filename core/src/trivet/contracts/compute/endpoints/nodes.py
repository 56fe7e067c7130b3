"""The common operations on nodes."""

from trivet.contracts.compute.node import NODE
from trivet.contracts.endpoint import crud

CRUD = crud(NODE, verbs=("list", "get", "edit", "delete"))
