"""Endpoint declarations: one value says all that is to be known of an operation.

The bus subject, the HTTP route, the OpenAPI entry, the CLI verb, the Python client, the policy
and the audit record all come from an `Endpoint`; nothing is written twice. The five operations
that every kind has are made by `crud`; anything else is one file in
`contracts/<service>/endpoints/` and one of the same name in the service's `endpoints/`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import Field

from trivet.contracts.access import Policy, needs
from trivet.contracts.model import LabelKey, LabelValue, Model, Name
from trivet.contracts.resource import Kind, OwnerRef, ResourceT, Scope, SpecT

SERVICES = ("compute", "storage", "network", "security", "gateway")

RequestT = TypeVar("RequestT", bound=Model)
ResponseT = TypeVar("ResponseT", bound=Model)


@dataclass(frozen=True)
class Http:
    """The HTTP face of an endpoint. `path` names its parameters as the request's fields.

    With `stream` the endpoint answers a `StreamTicket`, and the gateway brings the stream: in
    both directions over a `websocket` (binary messages), or as the `body` of the reply, of the
    type `media`.
    """

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    status: int = 200
    stream: Literal["websocket", "body"] | None = None
    media: str = "application/json"


@dataclass(frozen=True)
class Endpoint(Generic[RequestT, ResponseT]):
    """One operation of one service.

    `op` is `<noun>.<verb>` and gives the subject; `per_node` operations are answered by one
    node's agent, the others by any instance. `changes` is false for what only reads. `settles`
    says that the response is a resource and `?wait=` makes sense. `http` None: bus only.
    """

    service: str
    op: str
    request: type[RequestT]
    response: type[ResponseT]
    policy: Policy
    summary: str
    http: Http | None = None
    per_node: bool = False
    changes: bool = True
    settles: bool = False
    timeout_s: float = 10.0
    kind: Kind[Any] | None = None

    def subject(self, node: str | None = None) -> str:
        """The bus subject; `node` names whose agent, for a per-node operation."""
        if self.per_node != (node is not None):
            raise ValueError(f"{self.op}: a node is named for per-node operations, and only there")
        where = f"node.{node}." if node else ""
        return f"trivet.{self.service}.{where}{self.op}.v1"

    def subject_at(self, node: str) -> str:
        """The bus subject of one instance of the service, for an operation that any may answer:
        for callers on the same node."""
        if self.per_node:
            raise ValueError(f"{self.op}: no other instance may answer")
        return f"trivet.{self.service}.at.{node}.{self.op}.v1"

    def deadline_s(self, request: Model) -> float:
        """How long to wait for the answer: `timeout_s`, and what was asked to be waited for."""
        if isinstance(request, GetRequest | CreateRequest):
            return self.timeout_s + request.settle_s
        return self.timeout_s

    @property
    def noun(self) -> str:
        """The first word of `op`: in general a kind's name."""
        return self.op.split(".")[0]

    @property
    def verb(self) -> str:
        """The second word of `op`."""
        return self.op.split(".")[1]

    def __repr__(self) -> str:
        return f"<Endpoint {self.service} {self.op}>"


class Nothing(Model):
    """An empty request or response."""


class Ref(Model):
    """Names one resource; `project` is None for kinds of the cluster."""

    project: Name | None = None
    name: Name


class GetRequest(Ref):
    """Get one; with `settle_s` (0-60), answer when it has settled, or as it is by then."""

    settle_s: float = Field(default=0, ge=0, le=60)


class ListRequest(Model):
    """List: `project` None means every project (needs the right in the cluster).

    `label` is `key=value`; `cursor` is what the page before returned.
    """

    project: Name | None = None
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = Field(default=None, max_length=512)
    label: str | None = Field(default=None, max_length=128)
    owner: str | None = None


class Page(Model, Generic[ResourceT]):
    """A page of a list, in order of key; `cursor` None: it was the last. `missing` are services
    that keep some of these resources too and did not answer."""

    items: tuple[ResourceT, ...]
    cursor: str | None = None
    missing: tuple[str, ...] = ()


class NewMeta(Model):
    """What a caller may say of a new resource's meta."""

    name: Name
    project: Name | None = None
    labels: dict[LabelKey, LabelValue] = Field(default={}, max_length=64)


class CreateRequest(Model, Generic[SpecT]):
    """Create; with `settle_s` (0-60), answer when it has settled, or as it is by then. `owner`
    and `settle_s` are for services only: the gateway refuses them."""

    kind: str | None = None
    meta: NewMeta
    spec: SpecT
    owner: OwnerRef | None = None
    settle_s: float = Field(default=0, ge=0, le=60)


class EditRequest(Ref):
    """A merge patch (RFC 7396) on the spec, and on the labels; with `revision`, only if the
    resource still has that one."""

    revision: int | None = None
    spec: dict[str, Any] = {}
    labels: dict[LabelKey, LabelValue | None] = {}


class DeleteRequest(Ref):
    """Mark for deletion: it goes when its dependants have let go. Absent is not an error
    for services (`missing_ok`)."""

    revision: int | None = None
    missing_ok: bool = False


Verb = Literal["list", "get", "create", "edit", "delete"]
ALL_VERBS: tuple[Verb, ...] = ("list", "get", "create", "edit", "delete")


@dataclass(frozen=True)
class Crud(Generic[ResourceT]):
    """The endpoints of the five common operations on a kind; None where it lacks one."""

    kind: Kind[ResourceT]
    endpoints: tuple[Endpoint[Any, Any], ...]

    def __getattr__(self, verb: str) -> Endpoint[Any, Any]:
        for endpoint in self.endpoints:
            if endpoint.verb == verb:
                return endpoint
        raise AttributeError(f"{self.kind.name} has no operation {verb}")


def collection_path(kind: Kind[Any]) -> str:
    """The REST path of a kind's collection."""
    prefix = "/v1/projects/{project}" if kind.scope is Scope.PROJECT else "/v1"
    return f"{prefix}/{kind.plural}"


def crud(kind: Kind[ResourceT], verbs: Iterable[Verb] = ALL_VERBS) -> Crud[ResourceT]:
    """The endpoints of the common operations `verbs` on `kind`."""
    model, plural = kind.model, collection_path(kind)
    one = plural + "/{name}"
    page: type[Model] = Page[model]  # type: ignore[valid-type]
    create: type[Model] = CreateRequest[kind.spec_model]  # type: ignore[name-defined]
    table: dict[Verb, tuple[type[Model], type[Model], Http, str]] = {
        "list": (ListRequest, page, Http("GET", plural), f"List {kind.plural}."),
        "get": (GetRequest, model, Http("GET", one), f"Show one {kind.name}."),
        "create": (create, model, Http("POST", plural, 201), f"Create a {kind.name}."),
        "edit": (EditRequest, model, Http("PATCH", one), f"Change a {kind.name}'s spec or labels."),
        "delete": (DeleteRequest, model, Http("DELETE", one), f"Delete a {kind.name}."),
    }
    return Crud(
        kind,
        tuple(
            Endpoint(
                service=kind.service,
                op=f"{kind.name}.{verb}",
                request=table[verb][0],
                response=table[verb][1],
                policy=needs(f"{kind.service}.{kind.name}.{verb}"),
                summary=table[verb][3],
                http=table[verb][2],
                changes=verb not in ("list", "get"),
                settles=verb not in ("list",),
                kind=kind,
            )
            for verb in verbs
        ),
    )


def action(
    kind: Kind[ResourceT],
    verb: str,
    summary: str,
    *,
    request: type[Model] = Ref,
    response: type[Model] | None = None,
    timeout_s: float = 10.0,
) -> Endpoint[Any, Any]:
    """The endpoint of an action on one resource: `POST .../vms/{name}:start`."""
    return Endpoint(
        service=kind.service,
        op=f"{kind.name}.{verb}",
        request=request,
        response=response or kind.model,
        policy=needs(f"{kind.service}.{kind.name}.{verb}"),
        summary=summary,
        http=Http("POST", collection_path(kind) + "/{name}:" + verb),
        settles=response is None,
        timeout_s=timeout_s,
        kind=kind,
    )


def declared(service: str) -> tuple[Endpoint[Any, Any], ...]:
    """Every endpoint declared in `trivet.contracts.<service>.endpoints`, in order of `op`.

    A module there declares `ENDPOINT`, or `CRUD` for a kind's common operations.
    """
    package = importlib.import_module(f"trivet.contracts.{service}.endpoints")
    found: list[Endpoint[Any, Any]] = []
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        if hasattr(module, "CRUD"):
            found.extend(module.CRUD.endpoints)
        else:
            found.append(module.ENDPOINT)
    subjects = [e.op for e in found]
    if len(set(subjects)) != len(subjects):
        raise ValueError(f"{service} declares an operation twice: {sorted(subjects)}")
    return tuple(sorted(found, key=lambda e: e.op))
