"""The common operations on projects. One that holds anything can't be deleted.

Every service is asked what it has there: a project made anew under the name of an old one must
not inherit the old one's machines.
"""

from __future__ import annotations

from trivet.contracts.endpoint import SERVICES, ListRequest, declared
from trivet.contracts.errors import IN_USE, Refused
from trivet.contracts.resource import Scope
from trivet.contracts.security.endpoints.projects import CRUD
from trivet.contracts.security.identity import Project
from trivet.runtime.crud import Hooks, admit_anything, serve_crud
from trivet.runtime.service import Service
from trivet.security.domain.default_group import DEFAULT_GROUP, FINALIZER
from trivet.security.parts import Parts


def wire(service: Service, parts: Parts) -> None:
    """Answer the common operations."""
    foreign = [
        endpoint
        for name in SERVICES
        if name != parts.runtime.service
        for endpoint in declared(name)
        if endpoint.verb == "list" and endpoint.kind and endpoint.kind.scope is Scope.PROJECT
    ]

    async def may_delete(project: Project) -> None:
        name = project.meta.name
        groups = [g.meta.name for g in parts.groups.list(name) if g.meta.name != DEFAULT_GROUP]
        if groups:
            raise _in_use(name, "security-groups", groups[0])
        address_sets = [a.meta.name for a in parts.address_sets.list(name)]
        if address_sets:
            raise _in_use(name, "address-sets", address_sets[0])
        for user in parts.people.users.list():
            if name in {binding.project for binding in user.spec.roles}:
                raise _in_use(name, "roles of users", user.meta.name)
        for endpoint in foreign:
            page = await parts.runtime.client.call(endpoint, ListRequest(project=name, limit=1))
            if page.items:
                plural = endpoint.kind.plural if endpoint.kind else endpoint.noun
                raise _in_use(name, plural, page.items[0].meta.name)

    def shown(project: Project) -> Project:
        limited = project.spec.quotas.limits
        used = parts.ledgers.usage(project.meta.name) if limited else {}
        return project.with_status(usage=used)

    serve_crud(service, CRUD, Hooks(admit_anything, (FINALIZER,), may_delete, shown))


def _in_use(project: str, what: str, example: str) -> Refused:
    detail = f"project {project} still has {what}, such as {example}"
    return Refused(IN_USE, detail, hint="delete what is in it first")
