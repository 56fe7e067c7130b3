"""The common operations on security groups. One that ports stand behind can't be deleted."""

from __future__ import annotations

from typing import Any

from trivet.contracts.errors import IN_USE, REFERENCE, FieldError, Refused
from trivet.contracts.security.endpoints.security_groups import CRUD
from trivet.contracts.security.group import GROUP_PREFIX, SecurityGroup
from trivet.runtime.collection import Collection
from trivet.runtime.crud import Hooks, serve_crud
from trivet.runtime.service import Service
from trivet.security.domain.default_group import DEFAULT_GROUP
from trivet.security.parts import Parts
from trivet.security.port_list import ports_behind


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations."""

    async def admit(before: SecurityGroup | None, after: SecurityGroup) -> SecurityGroup:
        if before is None:
            in_a_project(parts, after.meta.project)
        await check_names(parts, after)
        return after

    async def may_delete(group: SecurityGroup) -> None:
        project, name = group.meta.project or "", group.meta.name
        if name == DEFAULT_GROUP:
            raise Refused(
                IN_USE,
                f"every project has a security group {name}: it goes with its project",
                hint="edit its rules instead",
            )
        ports = (await ports_behind(parts.runtime.client, project))[project, name]
        if ports:
            raise Refused(
                IN_USE,
                f"{ports} ports stand behind security group {name}",
                hint="take it from those ports first",
            )
        not_named(parts, project, f"{GROUP_PREFIX}{name}")

    serve_crud(service, CRUD, Hooks(admit, may_delete=may_delete))


def in_a_project(parts: Parts, project: str | None) -> None:
    """Refuse what is to live in a project that is not there."""
    if project not in parts.people.projects_now():
        wrong = FieldError(where="meta.project", message="no such project")
        raise Refused(REFERENCE, f"there is no project {project}", errors=(wrong,))


def not_named(parts: Parts, project: str, name: str) -> None:
    """Refuse to delete what a rule of another group names (`group:web`, `set:bad`)."""
    for group in parts.groups.list(project):
        if f"{GROUP_PREFIX}{group.meta.name}" == name:
            continue
        if any(rule.named == name for rule in group.spec.rules):
            raise Refused(
                IN_USE,
                f"a rule of security group {group.meta.name} names {name}",
                hint="change that rule first",
            )


async def check_names(parts: Parts, group: SecurityGroup) -> None:
    """Refuse rules that name groups or address sets that are not in the project."""
    project, errors = group.meta.project or "", []
    for number, rule in enumerate(group.spec.rules):
        if rule.named is None or rule.named == f"{GROUP_PREFIX}{group.meta.name}":
            continue
        kind, _, name = rule.named.partition(":")
        there: Collection[Any] = parts.groups if kind == "group" else parts.address_sets
        key = there.kind.key(project, name)
        if there.by_key(key) is None and await there.fresh(key) is None:
            where = f"spec.rules.{number}.remote"
            message = f"there is no {there.kind.name} {name} in project {project}"
            errors.append(FieldError(where=where, message=message))
    if errors:
        raise Refused(REFERENCE, errors[0].message, errors=tuple(errors))
