"""Who holds which rights, and who may give them: nobody gives what it does not have.

Rights are permission patterns held in a project or in the cluster. A pattern has no wildcard
but `*`, so that one pattern covers another exactly when it matches it as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from trivet.contracts.access import CLUSTER, Caller, Grant
from trivet.contracts.errors import FORBIDDEN, INVALID, REFERENCE, FieldError, Refused
from trivet.contracts.security.codes import LAST_ADMIN
from trivet.contracts.security.identity import Role, RoleBinding, User

ADMINISTRATOR = "admin"
_PATTERN = re.compile(r"^[a-z0-9*_-]+(\.[a-z0-9*_-]+){0,2}$")

Roles = Mapping[str, Role]


def grants_of(bindings: Iterable[RoleBinding], roles: Roles) -> tuple[Grant, ...]:
    """What role bindings amount to; a role that is not there gives nothing."""
    by_project: dict[str, set[str]] = {}
    for binding in bindings:
        role = roles.get(binding.role)
        if role is not None:
            by_project.setdefault(binding.project, set()).update(role.spec.permissions)
    return tuple(
        Grant(project=project, permissions=tuple(sorted(by_project[project])))
        for project in sorted(by_project)
    )


def excess(have: Iterable[Grant], wanted: Iterable[Grant]) -> tuple[str, ...]:
    """The rights in `wanted` that `have` does not cover, as `<pattern> in <project>`."""
    held = tuple(have)
    return tuple(
        f"{permission} in {grant.project}"
        for grant in wanted
        for permission in grant.permissions
        if not _covers(held, grant.project, permission)
    )


def _covers(have: Iterable[Grant], project: str, permission: str) -> bool:
    return any(
        grant.project in (CLUSTER, project)
        and any(fnmatchcase(permission, pattern) for pattern in grant.permissions)
        for grant in have
    )


def narrowed(
    grants: Iterable[Grant],
    permissions: Iterable[str] | None,
    projects: Iterable[str] | None,
) -> tuple[Grant, ...]:
    """What a token of that scope gives of its user's grants: what both allow."""
    found: dict[str, set[str]] = {}
    scope = None if permissions is None else tuple(permissions)
    allowed = None if projects is None else tuple(projects)
    for grant in grants:
        patterns = (
            set(grant.permissions)
            if scope is None
            else {both for p in grant.permissions for s in scope if (both := _both(p, s))}
        )
        if allowed is None or grant.project in allowed:
            where: tuple[str, ...] = (grant.project,)
        else:
            where = allowed if grant.project == CLUSTER else ()
        for project in where:
            found.setdefault(project, set()).update(patterns)
    return tuple(
        Grant(project=project, permissions=tuple(sorted(found[project])))
        for project in sorted(found)
        if found[project]
    )


def _both(one: str, other: str) -> str | None:
    """The pattern of what two patterns both match, part by part; None where that is nothing,
    or can't be said by a pattern."""
    parts = []
    for a, b in zip(_parts(one), _parts(other), strict=True):
        if fnmatchcase(a, b):
            parts.append(a)
        elif fnmatchcase(b, a):
            parts.append(b)
        else:
            return None
    return ".".join(parts)


def _parts(pattern: str) -> tuple[str, ...]:
    """A pattern's three parts: a `*` at its end stands for all that follow."""
    parts = tuple(pattern.split("."))
    return (*parts, *("*" * (3 - len(parts)) if parts[-1].endswith("*") else ()))


def may_give(caller: Caller, wanted: Iterable[Grant], what: str) -> None:
    """Refuse to let `caller` give or take rights that it does not have itself."""
    missing = excess(caller.grants, wanted)
    if missing:
        raise Refused(
            FORBIDDEN,
            f"{what}: this takes rights that {caller.user} does not have: {missing[0]}",
            hint="ask somebody who has them",
        )


def check_patterns(permissions: Iterable[str], where: str = "spec.permissions") -> None:
    """Refuse permission patterns that are none."""
    errors = tuple(
        FieldError(
            where=f"{where}.{number}",
            message=f"{text!r} is not a permission pattern",
            accepted="<service>.<kind>.<verb>, with * as the only wildcard",
        )
        for number, text in enumerate(permissions)
        if not _PATTERN.match(text)
    )
    if errors:
        raise Refused(INVALID, errors[0].message, errors=errors)


def check_references(bindings: Iterable[RoleBinding], roles: Roles, projects: set[str]) -> None:
    """Refuse role bindings that name a role or a project that is not there."""
    errors = []
    for number, binding in enumerate(bindings):
        if binding.role not in roles:
            errors.append(FieldError(where=f"spec.roles.{number}.role", message="no such role"))
        if binding.project != CLUSTER and binding.project not in projects:
            where = f"spec.roles.{number}.project"
            errors.append(FieldError(where=where, message="no such project"))
    if errors:
        first = errors[0]
        raise Refused(REFERENCE, f"{first.where}: {first.message}", errors=tuple(errors))


def administers(user: User) -> bool:
    """Whether the user may do everything by the built-in role, which can't be changed: what
    keeps a cluster from being locked for ever. Other roles with all rights don't count."""
    held = RoleBinding(role=ADMINISTRATOR, project=CLUSTER) in user.spec.roles
    return held and not user.spec.disabled and user.meta.deleting_at is None


def last_administrator() -> Refused:
    """The refusal of a change after which nobody could administer the cluster any more."""
    return Refused(
        LAST_ADMIN,
        "nobody would be left who may do everything in the cluster",
        hint="give another user the role admin in '*' first",
    )
