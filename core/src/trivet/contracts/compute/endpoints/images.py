"""The common operations on images."""

from trivet.contracts.compute.image import IMAGE
from trivet.contracts.endpoint import crud

CRUD = crud(IMAGE)
