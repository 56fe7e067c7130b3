"""Resources: `meta + spec + status`, and what a kind of resource is.

`spec` is what was asked, `status` what was seen. `meta.generation` grows with every change of
the spec, `status.observed_generation` says which one the status speaks of, `meta.revision` is
the store's and is what a compare-and-swap names. A resource's key in the store is
`<kind>.<project>.<name>` ('_' where it has no project), so that a name is unique by the store's
own rule and needs no second record. Names therefore never change; ids never repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Generic, Literal, Self, TypeVar, cast

from pydantic import Field

from trivet.contracts.event import EventType, PendingEvent, ResourceFacts
from trivet.contracts.model import LabelKey, LabelValue, Model, Name, ResourceId


class Phase(StrEnum):
    """How a resource is, in one word. `unknown` never reads as any of the others."""

    PENDING = "pending"
    READY = "ready"
    DEGRADED = "degraded"
    UNKNOWN = "unknown"
    FAILED = "failed"
    DELETING = "deleting"


class Condition(Model):
    """One aspect of the status: `type` is CamelCase, `reason` a CamelCase word, `message` a
    sentence for people, `since` when `status` last changed (UTC)."""

    type: str
    status: Literal["true", "false", "unknown"]
    reason: str
    message: str = ""
    since: datetime | None = None


class OwnerRef(Model):
    """The resource for which this one was made; it goes when its owner is gone."""

    kind: str
    id: ResourceId
    project: str | None
    name: str


class Meta(Model):
    """What every resource carries. Times are UTC; `revision` 0 means not yet stored."""

    id: ResourceId
    name: Name
    project: Name | None = None
    labels: Annotated[Mapping[LabelKey, LabelValue], Field(max_length=64)] = {}
    generation: int = 1
    revision: int = 0
    created_at: datetime
    deleting_at: datetime | None = None
    finalizers: tuple[str, ...] = ()
    owner: OwnerRef | None = None


class Status(Model):
    """The part of every status that all kinds share."""

    phase: Phase = Phase.PENDING
    conditions: tuple[Condition, ...] = ()
    observed_generation: int = 0

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, or None where nothing was said of it."""
        return next((c for c in self.conditions if c.type == type_), None)

    def with_condition(self, new: Condition, now: datetime) -> Self:
        """This status with `new` in it; `since` moves only when the condition's status does."""
        old = self.condition(new.type)
        since = old.since if old and old.status == new.status and old.since else now
        kept = tuple(c for c in self.conditions if c.type != new.type)
        conditions = sorted([*kept, new.model_copy(update={"since": since})], key=lambda c: c.type)
        return self.model_copy(update={"conditions": tuple(conditions)})


SpecT = TypeVar("SpecT", bound=Model)
StatusT = TypeVar("StatusT", bound=Status)


class Resource(Model, Generic[SpecT, StatusT]):
    """A resource of some kind; concrete kinds fix `kind` and the two type arguments."""

    kind: str
    meta: Meta
    spec: SpecT
    status: StatusT

    def settled(self) -> bool:
        """Whether what was asked has been seen, or will not be without somebody's help."""
        if self.meta.deleting_at is not None:
            return False
        seen = self.status.observed_generation >= self.meta.generation
        return seen and self.status.phase not in (Phase.PENDING, Phase.UNKNOWN)

    def with_status(self, **changes: object) -> Self:
        """This resource with the named fields of its status changed and validated."""
        status = type(self.status).model_validate({**dict(self.status), **changes})
        return self.model_copy(update={"status": status})

    def with_spec(self, spec: Model) -> Self:
        """This resource asking for `spec`: the generation grows if that is another spec."""
        if spec == self.spec:
            return self
        meta = self.meta.model_copy(update={"generation": self.meta.generation + 1})
        return self.model_copy(update={"spec": spec, "meta": meta})

    def with_meta(self, **changes: object) -> Self:
        """This resource with the named fields of its meta changed and validated."""
        meta = Meta.model_validate({**dict(self.meta), **changes})
        return self.model_copy(update={"meta": meta})

    def __repr__(self) -> str:
        return (
            f"<{self.kind} {self.meta.name} gen={self.meta.generation} "
            f"rev={self.meta.revision} {self.status.phase}>"
        )

    __str__ = __repr__


AnyResource = Resource[Any, Any]
ResourceT = TypeVar("ResourceT", bound=AnyResource)


class Scope(StrEnum):
    """Whether a kind lives in a project or belongs to the cluster."""

    PROJECT = "project"
    CLUSTER = "cluster"


Amounts = Mapping[str, int]
"""How much of each quota something takes: `{"vms": 1, "vcpus": 4}`."""

Derive = Callable[[ResourceT | None, ResourceT | None], tuple[EventType, ...]]


@dataclass(frozen=True)
class Kind(Generic[ResourceT]):
    """A kind of resource: its model, its words, its owner, and the events of its changes.

    `name` is the one spelling, singular, in keys, operations and the CLI (`security-group`);
    `extra_events` derives, from the resource before and after a write, the events beyond
    `created`, `edited`, `phase_changed` and `deleted`, which every kind has. `shared`: several
    services have a kind of this name, each keeps its own, and the gateway shows them as one.
    """

    model: type[ResourceT]
    name: str
    plural: str
    service: str
    scope: Scope
    summary: str
    extra_events: Derive[ResourceT] = field(default=lambda before, after: ())
    extra_event_types: tuple[EventType, ...] = ()
    shared: bool = False
    takes: Callable[[ResourceT], Amounts] | None = None
    """What one takes of its project's quotas; None: nothing of this kind is limited."""

    def __post_init__(self) -> None:
        known_as = f"{self.service}.{self.name}" if self.shared else self.name
        if known_as in KINDS:
            raise ValueError(f"kind {self.name} is declared twice")
        KINDS[known_as] = self

    @property
    def spec_model(self) -> type[Model]:
        """The model of this kind's spec."""
        return cast(type[Model], self.model.model_fields["spec"].annotation)

    def key(self, project: str | None, name: str) -> str:
        """The store key of the resource of that name."""
        return f"{self.name}.{project or '_'}.{name}"

    def event_type(self, verb: str) -> EventType:
        """One of the four events that every kind has."""
        return EventType(self.service, self.name, verb)

    @property
    def event_types(self) -> tuple[EventType, ...]:
        """Every event that a change of a resource of this kind can cause."""
        common = ("created", "edited", "phase_changed", "deleted")
        return (*(self.event_type(v) for v in common), *self.extra_event_types)

    def __repr__(self) -> str:
        return f"<Kind {self.service}/{self.name}>"


KINDS: dict[str, Kind[Any]] = {}


def derive_events(
    kind: Kind[ResourceT], before: ResourceT | None, after: ResourceT | None, now: datetime
) -> tuple[PendingEvent, ...]:
    """The events that the write `before -> after` causes, in order; None is 'not there'.

    An event is a function of two states and nothing else, so it can't say what the state
    does not.
    """
    types: list[EventType] = []
    if before is None and after is not None:
        types.append(kind.event_type("created"))
    if before is not None and after is not None:
        if after.meta.generation != before.meta.generation:
            types.append(kind.event_type("edited"))
        if after.status.phase != before.status.phase:
            types.append(kind.event_type("phase_changed"))
    types.extend(kind.extra_events(before, after))
    if before is not None and after is None:
        types.append(kind.event_type("deleted"))
    subject = after or before
    assert subject is not None
    facts = ResourceFacts(
        kind=subject.kind,
        id=subject.meta.id,
        name=subject.meta.name,
        project=subject.meta.project,
        generation=subject.meta.generation,
        phase=subject.status.phase.value,
    )
    return tuple(
        PendingEvent(type=t.type, subject=subject.meta.id, time=now, data=facts) for t in types
    )
