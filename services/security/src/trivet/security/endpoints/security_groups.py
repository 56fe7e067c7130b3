"""The common operations on security groups. One that ports stand behind can't be deleted."""

from __future__ import annotations

from trivet.contracts.errors import IN_USE, REFERENCE, FieldError, Refused
from trivet.contracts.security.endpoints.security_groups import CRUD
from trivet.contracts.security.group import SecurityGroup
from trivet.runtime.crud import Hooks, serve_crud
from trivet.runtime.service import Service
from trivet.security.domain.default_group import DEFAULT_GROUP
from trivet.security.parts import Parts
from trivet.security.port_list import ports_behind


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations."""

    async def admit(before: SecurityGroup | None, after: SecurityGroup) -> SecurityGroup:
        project = after.meta.project
        if before is None and project not in parts.people.projects_now():
            wrong = FieldError(where="meta.project", message="no such project")
            raise Refused(REFERENCE, f"there is no project {project}", errors=(wrong,))
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

    serve_crud(service, CRUD, Hooks(admit, may_delete=may_delete))
