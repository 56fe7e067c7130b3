"""AddressSet: a named list of networks that rules can speak of as `set:NAME`."""

from __future__ import annotations

from pydantic import Field

from trivet.contracts.model import Model
from trivet.contracts.resource import Kind, Resource, Scope, Status
from trivet.contracts.security.group import Cidr


class AddressSetSpec(Model):
    """Networks and addresses (a bare address is a network of one), v4 and v6, in any order."""

    addresses: tuple[Cidr, ...] = Field(default=(), max_length=20000)
    description: str = Field(default="", max_length=200)


class AddressSetStatus(Status):
    """An address set's status."""


class AddressSet(Resource[AddressSetSpec, AddressSetStatus]):
    """A named list of networks."""

    kind: str = "AddressSet"


ADDRESS_SET = Kind(
    AddressSet,
    "address-set",
    "address-sets",
    "security",
    Scope.PROJECT,
    "A named list of networks for firewall rules",
)
