"""Users, roles, projects and tokens: who may do what, where.

A token is shown once, when it is made; what is kept is a hash of it. A user holds roles in
projects or in the cluster ('*'). Roles `admin`, `operator`, `member` and `viewer` are built in.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from trivet.contracts.event import EventType
from trivet.contracts.model import Model, Name
from trivet.contracts.resource import Kind, Resource, Scope, Status
from trivet.contracts.security.quota import Quotas


class ProjectSpec(Model):
    """A project: resources of its own, apart from those of others."""

    description: str = Field(default="", max_length=200)
    quotas: Quotas = Quotas()


class ProjectStatus(Status):
    """`usage` is how much of each limited thing is claimed now; empty where nothing is."""

    usage: dict[str, int] = {}


class Project(Resource[ProjectSpec, ProjectStatus]):
    """A separate set of resources."""

    kind: str = "Project"


class RoleSpec(Model):
    """Permission patterns: `compute.vm.*`, `*.*.get`."""

    permissions: tuple[str, ...] = Field(max_length=256)
    description: str = Field(default="", max_length=200)


class RoleStatus(Status):
    """A role's status; `builtin` ones can't be changed."""

    builtin: bool = False


class Role(Resource[RoleSpec, RoleStatus]):
    """A named set of permissions."""

    kind: str = "Role"


class RoleBinding(Model):
    """A role held in a project; '*' is the cluster, and with it every project."""

    role: Name
    project: str = Field(pattern=r"^(\*|[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)$")


class UserSpec(Model):
    """A person or a program."""

    roles: tuple[RoleBinding, ...] = Field(default=(), max_length=256)
    disabled: bool = False
    description: str = Field(default="", max_length=200)


class UserStatus(Status):
    """A user's status."""


class User(Resource[UserSpec, UserStatus]):
    """Who can hold tokens and roles."""

    kind: str = "User"


class TokenSpec(Model):
    """Whose token, and until when (None: until revoked). `permissions` and `projects` make it
    narrower than its user: it gives what both allow (None: all that the user may)."""

    user: Name
    expires_at: datetime | None = None
    permissions: tuple[str, ...] | None = Field(default=None, max_length=256)
    projects: tuple[Name, ...] | None = Field(default=None, max_length=256)
    description: str = Field(default="", max_length=200)


class TokenStatus(Status):
    """`hash` is SHA-256 of the secret part, which has 256 bits of randomness. After a rotation
    the secret before is good until `previous_until`."""

    hash: str = Field(default="", repr=False)
    previous_hash: str = Field(default="", repr=False)
    previous_until: datetime | None = None
    rotated_at: datetime | None = None
    last_used_at: datetime | None = None


class Token(Resource[TokenSpec, TokenStatus]):
    """What proves who calls. The secret itself is not in it."""

    kind: str = "Token"


PROJECT = Kind(
    Project, "project", "projects", "security", Scope.CLUSTER, "A set of resources apart"
)
ROLE = Kind(Role, "role", "roles", "security", Scope.CLUSTER, "A named set of permissions")
USER = Kind(User, "user", "users", "security", Scope.CLUSTER, "Who can hold tokens and roles")
TOKEN_ROTATED = EventType("security", "token", "rotated")


def _token_events(before: Token | None, after: Token | None) -> tuple[EventType, ...]:
    """A rotation is told, so that gateways forget the secret before at once."""
    if before is None or after is None or before.status.hash == after.status.hash:
        return ()
    return (TOKEN_ROTATED,)


TOKEN = Kind(
    Token,
    "token",
    "tokens",
    "security",
    Scope.CLUSTER,
    "What proves who calls",
    extra_events=_token_events,
    extra_event_types=(TOKEN_ROTATED,),
)
