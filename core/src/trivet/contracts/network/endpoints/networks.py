"""The common operations on networks."""

from trivet.contracts.endpoint import crud
from trivet.contracts.network.network import NETWORK

CRUD = crud(NETWORK)
