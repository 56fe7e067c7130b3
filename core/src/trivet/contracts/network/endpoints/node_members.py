"""Ask a node's network agent for the addresses of the ports behind groups, on all nodes."""

from pydantic import Field

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model
from trivet.contracts.security.firewall import AddressList


class GroupName(Model):
    """A security group by project and name."""

    project: str
    name: str


class MembersRequest(Model):
    """Groups whose ports' addresses are asked for."""

    groups: tuple[GroupName, ...] = Field(max_length=10000)


class MembersResponse(Model):
    """One list for each group that was asked for, named `group:NAME`, addresses in order. Of
    ports that are being deleted there are none."""

    lists: tuple[AddressList, ...]


ENDPOINT = Endpoint(
    service="network",
    op="port.members",
    request=MembersRequest,
    response=MembersResponse,
    policy=INTERNAL,
    summary="The addresses of the ports behind groups, as this node's agent knows them.",
    per_node=True,
    changes=False,
)
