"""The common operations on address sets."""

from trivet.contracts.endpoint import crud
from trivet.contracts.security.address_set import ADDRESS_SET

CRUD = crud(ADDRESS_SET)
