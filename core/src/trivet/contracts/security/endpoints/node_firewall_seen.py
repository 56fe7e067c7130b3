"""Ask a node's security agent what the rules of a group did there: hits, and the log."""

from trivet.contracts.access import INTERNAL
from trivet.contracts.endpoint import Endpoint
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.security.firewall import LogEntry, RuleHits


class SeenRequest(Model):
    """Which group."""

    group: ResourceId


class SeenResponse(Model):
    """Hits since the rules are in force there, and the newest log entries, oldest first."""

    hits: tuple[RuleHits, ...]
    entries: tuple[LogEntry, ...]


ENDPOINT = Endpoint(
    service="security",
    op="firewall.seen",
    request=SeenRequest,
    response=SeenResponse,
    policy=INTERNAL,
    summary="What the rules of a group did at a node's ports.",
    per_node=True,
    changes=False,
)
