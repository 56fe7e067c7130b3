"""The common operations on security groups."""

from trivet.contracts.endpoint import crud
from trivet.contracts.security.group import SECURITY_GROUP

CRUD = crud(SECURITY_GROUP)
