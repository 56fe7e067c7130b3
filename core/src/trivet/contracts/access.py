"""Who calls, and what they may do: callers, policies, and the pure answer.

A permission is `<service>.<kind>.<verb>` (`compute.vm.start`); a role is a set of permission
patterns; a caller holds roles in projects, or in the cluster ('*'). Every endpoint names its
policy, so that the gateway and a reader know who may call it without looking further.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from trivet.contracts.model import Model

CLUSTER = "*"


class Audience(StrEnum):
    """Who may knock at all: anybody, anybody with a token, those with the permission, or
    only Trivet's own services (the gateway does not offer those endpoints)."""

    PUBLIC = "public"
    AUTHENTICATED = "authenticated"
    PERMITTED = "permitted"
    INTERNAL = "internal"


@dataclass(frozen=True)
class Policy:
    """What an endpoint demands of its caller."""

    audience: Audience
    permission: str = ""

    def __post_init__(self) -> None:
        if (self.audience is Audience.PERMITTED) != bool(self.permission):
            raise ValueError("a permission goes with the audience `permitted`, and only with it")


PUBLIC = Policy(Audience.PUBLIC)
AUTHENTICATED = Policy(Audience.AUTHENTICATED)
INTERNAL = Policy(Audience.INTERNAL)


def needs(permission: str) -> Policy:
    """The policy of an endpoint that demands `permission` in its project or in the cluster."""
    return Policy(Audience.PERMITTED, permission)


class Grant(Model):
    """Permission patterns (`compute.vm.*`) held in one project, or in the cluster ('*')."""

    project: str
    permissions: tuple[str, ...]


class Caller(Model):
    """Who makes a call, as the gateway found by the token; services put themselves here."""

    user: str
    token_id: str | None = None
    address: str | None = None
    grants: tuple[Grant, ...] = ()


def service_caller(service: str) -> Caller:
    """The caller that a Trivet service is when it calls another one for itself."""
    return Caller(user=f"service:{service}", grants=(Grant(project=CLUSTER, permissions=("*",)),))


def allowed(caller: Caller | None, policy: Policy, project: str | None) -> bool:
    """Whether `caller` may do what `policy` guards in `project` (None: in the cluster).

    A grant in the cluster holds in every project; a grant in a project holds there alone.
    """
    match policy.audience:
        case Audience.PUBLIC:
            return True
        case Audience.INTERNAL:
            return caller is not None and caller.user.startswith("service:")
        case Audience.AUTHENTICATED:
            return caller is not None
        case Audience.PERMITTED:
            return caller is not None and any(
                grant.project in (CLUSTER, project)
                and any(fnmatchcase(policy.permission, p) for p in grant.permissions)
                for grant in caller.grants
            )
