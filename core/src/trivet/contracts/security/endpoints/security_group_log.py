"""What the rules of a group that have `log` told, over all nodes."""

from trivet.contracts.access import needs
from trivet.contracts.endpoint import Endpoint, Http, Ref
from trivet.contracts.model import Model
from trivet.contracts.security.firewall import LogEntry
from trivet.contracts.security.group import SECURITY_GROUP


class GroupLog(Model):
    """The newest packets, oldest first; a node keeps a thousand of each group, until its service
    starts anew. `silent` nodes did not answer."""

    entries: tuple[LogEntry, ...]
    silent: tuple[str, ...] = ()


ENDPOINT = Endpoint(
    service="security",
    op="security-group.log",
    request=Ref,
    response=GroupLog,
    policy=needs("security.security-group.get"),
    summary="Packets that rules with `log` decided on.",
    http=Http("GET", "/v1/projects/{project}/security-groups/{name}/log"),
    changes=False,
    kind=SECURITY_GROUP,
)
