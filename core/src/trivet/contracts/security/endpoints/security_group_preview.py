"""What a change of a group's rules would do: nothing is changed by asking."""

from pydantic import Field

from trivet.contracts.access import needs
from trivet.contracts.endpoint import Endpoint, Http, Ref
from trivet.contracts.model import Model
from trivet.contracts.security.group import (
    SECURITY_GROUP,
    Action,
    Direction,
    Protocol,
    Rule,
)


class PreviewRequest(Ref):
    """The group with the rules that it would have."""

    rules: tuple[Rule, ...] = Field(default=(), max_length=10000)


class CutConnection(Model):
    """A connection under way that would not be allowed any more (or would be now). It is not
    cut by the change: a new one like it would be refused."""

    port: str
    direction: Direction
    protocol: Protocol
    remote: str
    port_number: int
    before: Action
    after: Action
    by: Rule | None


class ChangedReach(Model):
    """Who would be treated otherwise at a port: `remote` is another port's name, a network that
    a rule names, or `anywhere else`. `ports` are ranges; none: the protocol has none."""

    port: str
    direction: Direction
    protocol: Protocol
    remote: str
    ports: tuple[str, ...]
    before: Action
    after: Action
    by: Rule | None


class PreviewResponse(Model):
    """`complete` is false where there was more to look at than the bound; `silent` nodes did
    not tell their connections. `by` is the rule that would decide, None the default."""

    connections: tuple[CutConnection, ...]
    reach: tuple[ChangedReach, ...]
    complete: bool
    silent: tuple[str, ...] = ()


ENDPOINT = Endpoint(
    service="security",
    op="security-group.preview",
    request=PreviewRequest,
    response=PreviewResponse,
    policy=needs("security.security-group.get"),
    summary="What a change of a group's rules would allow and block.",
    http=Http("POST", "/v1/projects/{project}/security-groups/{name}:preview"),
    changes=False,
    timeout_s=30.0,
    kind=SECURITY_GROUP,
)
