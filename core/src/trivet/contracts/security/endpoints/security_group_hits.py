"""How often each rule of a group decided, over all nodes."""

from trivet.contracts.access import needs
from trivet.contracts.endpoint import Endpoint, Http, Ref
from trivet.contracts.model import Model
from trivet.contracts.security.group import SECURITY_GROUP, Rule


class RuleCount(Model):
    """A rule, and on how many packets it decided since it is in force; None: not counted one
    by one, as in groups of very many rules. Packets of connections that a rule has once allowed
    are not judged again, so they are not in it."""

    rule: Rule
    packets: int | None
    bytes: int | None


class GroupHits(Model):
    """The rules in the order of the spec; `silent` nodes did not answer, their hits are
    missing."""

    rules: tuple[RuleCount, ...]
    silent: tuple[str, ...] = ()


ENDPOINT = Endpoint(
    service="security",
    op="security-group.hits",
    request=Ref,
    response=GroupHits,
    policy=needs("security.security-group.get"),
    summary="How often each rule of a security group decided.",
    http=Http("GET", "/v1/projects/{project}/security-groups/{name}/hits"),
    changes=False,
    kind=SECURITY_GROUP,
)
