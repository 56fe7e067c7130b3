"""The five operations that every kind has, once for all kinds.

A kind adds what is its own through `Hooks`: `admit` checks a new or changed resource against
the world and fills in what was left open. Deleting marks; whoever holds a finalizer lets go of
what it keeps for the resource and drops it; the last one to do so removes the resource.
"""

from __future__ import annotations

import asyncio
import base64
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic

from pydantic import ValidationError

from trivet.contracts.endpoint import (
    CreateRequest,
    Crud,
    DeleteRequest,
    EditRequest,
    GetRequest,
    ListRequest,
    Page,
)
from trivet.contracts.errors import (
    CONFLICT,
    DELETING,
    IMMUTABLE,
    INVALID,
    MALFORMED,
    NAME_TAKEN,
    NOT_FOUND,
    REVISION,
    TIMEOUT,
    FieldError,
    Refused,
    Retry,
)
from trivet.contracts.model import Model
from trivet.contracts.resource import Kind, Meta, Phase, ResourceT, Scope
from trivet.runtime.call import Call, malformed
from trivet.runtime.clock import new_id
from trivet.runtime.collection import Collection
from trivet.runtime.quota_claims import QuotaClaims
from trivet.runtime.service import Service

EDIT_ATTEMPTS = 10
STEP_APART_S = 0.005


@dataclass(frozen=True)
class Hooks(Generic[ResourceT]):
    """What a kind adds. `admit(before, after)` returns what is to be stored, or raises
    `Refused`; `before` is None for a new one. `may_delete` raises `Refused` where it may not.
    Both judge the very revision that is then changed, and are asked again after a conflict;
    they may raise `Refused(CONFLICT)` themselves. `shown` changes what leaves the service (to
    blank a secret)."""

    admit: Callable[[ResourceT | None, ResourceT], Awaitable[ResourceT]]
    finalizers: tuple[str, ...] = ()
    may_delete: Callable[[ResourceT], Awaitable[None]] | None = None
    shown: Callable[[ResourceT], ResourceT] = lambda resource: resource


async def admit_anything(before: ResourceT | None, after: ResourceT) -> ResourceT:
    """The `admit` of a kind that has nothing to check."""
    return after


def not_found(kind: Kind[Any], name: str, project: str | None) -> Refused:
    """The refusal of a name that is not there."""
    where = f" in project {project}" if project else ""
    return Refused(NOT_FOUND, f"there is no {kind.name} {name}{where}")


class CrudHandlers(Generic[ResourceT]):
    """The handlers of one kind's common operations."""

    def __init__(
        self, service: Service, collection: Collection[ResourceT], hooks: Hooks[ResourceT]
    ) -> None:
        self._service = service
        self._all = collection
        self._kind = collection.kind
        self._hooks = hooks
        self._quotas = QuotaClaims(service.runtime.client, collection.kind)

    async def get(self, request: GetRequest, call: Call) -> ResourceT:
        """One resource, from the store; with `settle_s`, once it has settled."""
        project = self._project(request.project)
        key = self._kind.key(project, request.name)
        found = self._all.by_key(key) or await self._all.fresh(key)
        if found is not None and request.settle_s and not found.settled():
            wait = request.settle_s
            found = await self._all.wait_for(key, lambda r: r is None or r.settled(), wait)
        if found is None:
            raise not_found(self._kind, request.name, project)
        return self._hooks.shown(found)

    async def list(self, request: ListRequest, call: Call) -> Page[ResourceT]:
        """A page, from the copy."""
        project = request.project if self._kind.scope is Scope.PROJECT else None
        after = _decode_cursor(request.cursor)
        chosen: list[ResourceT] = []
        more = False
        for resource in self._all.scan(project, after):
            if not _matches(resource, request):
                continue
            if len(chosen) == request.limit:
                more = True
                break
            chosen.append(self._hooks.shown(resource))
        cursor = _encode_cursor(self._all.key_of(chosen[-1])) if more else None
        return Page[self._kind.model](items=tuple(chosen), cursor=cursor)  # type: ignore[name-defined]

    async def create(self, request: CreateRequest[Any], call: Call) -> ResourceT:
        """Store a new resource; with `settle_s`, answer once it has settled."""
        if (
            request.kind is not None
            and request.kind != self._kind.model.model_fields["kind"].default
        ):
            raise Refused(MALFORMED, f"kind: {request.kind} is not what is created here")
        if request.owner is not None and not call.caller.user.startswith("service:"):
            raise Refused(MALFORMED, "owner: only services make resources for others")
        fresh = self.made(request, call.nonce)
        if call.nonce is not None and (there := await self._same(fresh)) is not None:
            return self._hooks.shown(there)
        # Neither waits for the other: what is claimed in vain is given back.
        claimed, admitted = await asyncio.gather(
            self._quotas.claim(None, fresh), self._hooks.admit(None, fresh), return_exceptions=True
        )
        if isinstance(claimed, BaseException):
            raise claimed
        try:
            if isinstance(admitted, BaseException):
                raise admitted
            made = await self._all.create(admitted)
        except Refused as error:
            # The first try of this very call may have come through meanwhile.
            there = None
            if call.nonce is not None and error.code is NAME_TAKEN:
                there = await self._same(fresh)
            if there is None:
                await self._quotas.give_back(fresh)
                raise
            made = there
        return self._hooks.shown(await self._settled(made, request.settle_s))

    async def _settled(self, made: ResourceT, wait_s: float) -> ResourceT:
        """It as it is when it has settled, or by then; as it was made, if it has gone."""
        if not wait_s or made.settled():
            return made
        key, id_ = self._all.key_of(made), made.meta.id
        there = await self._all.wait_for(
            key, lambda r: r is None or r.meta.id != id_ or r.settled(), wait_s
        )
        return there if there is not None and there.meta.id == id_ else made

    async def _same(self, resource: ResourceT) -> ResourceT | None:
        """What is stored under the same id: an earlier try of the same call made it."""
        there = await self._all.fresh(self._all.key_of(resource))
        return there if there is not None and there.meta.id == resource.meta.id else None

    def made(self, request: CreateRequest[Any], nonce: str | None = None) -> ResourceT:
        """The new resource that a request describes, before it is admitted."""
        now = self._service.runtime.clock.now()
        meta = Meta(
            id=new_id(self._kind.name, nonce),
            name=request.meta.name,
            project=self._project(request.meta.project),
            labels=request.meta.labels,
            created_at=now,
            finalizers=self._hooks.finalizers,
            owner=request.owner,
        )
        status_model: Any = self._kind.model.model_fields["status"].annotation
        phase = Phase.PENDING if self._hooks.finalizers else Phase.READY
        status = status_model(phase=phase, observed_generation=0 if self._hooks.finalizers else 1)
        kind = self._kind.model.model_fields["kind"].default
        return self._kind.model(kind=kind, meta=meta, spec=request.spec, status=status)

    async def edit(self, request: EditRequest, call: Call) -> ResourceT:
        """Merge a patch into spec and labels, over conflicts unless a revision was named."""
        project = self._project(request.project)
        key = self._kind.key(project, request.name)
        began = self._service.runtime.clock.monotonic()
        for attempt in range(EDIT_ATTEMPTS):
            await self._apart(attempt, call, began)
            before = await self._all.fresh(key)
            if before is None:
                raise not_found(self._kind, request.name, project)
            self._same_revision(before, request.revision)
            if before.meta.deleting_at is not None:
                raise Refused(DELETING, f"{self._kind.name} {request.name} is being deleted")
            try:
                after = await self._hooks.admit(before, self._patched(before, request))
                await self._quotas.claim(before, after)
                written = await self._all.write(before, after)
                await self._quotas.settle(before, after)
                return self._hooks.shown(written)
            except Refused as error:
                if error.code is not CONFLICT:
                    raise
        raise Refused(CONFLICT, f"{self._kind.name} {request.name} changes too often to be edited")

    async def delete(self, request: DeleteRequest, call: Call) -> ResourceT:
        """Mark for deletion; at once gone where nobody keeps anything for it."""
        project = self._project(request.project)
        key = self._kind.key(project, request.name)
        began = self._service.runtime.clock.monotonic()
        for attempt in range(EDIT_ATTEMPTS):
            await self._apart(attempt, call, began)
            before = await self._all.fresh(key)
            if before is None:
                raise not_found(self._kind, request.name, project)
            self._same_revision(before, request.revision)
            try:
                marked = await self._marked(before)
            except Refused as error:
                if error.code is not CONFLICT:
                    raise
                continue
            if not marked.meta.finalizers:
                await self._all.remove(marked)
            return self._hooks.shown(marked)
        raise Refused(CONFLICT, f"{self._kind.name} {request.name} changes too often to be deleted")

    async def _apart(self, attempt: int, call: Call, began: float) -> None:
        """Who conflicted twice waits for a random while, or two could go on in step for ever.
        Raises `Retry(TIMEOUT)` where the caller has given up since: it may have asked again, and
        for something else after that, which this request must not undo."""
        clock = self._service.runtime.clock
        if attempt > 1:
            await clock.sleep(random.random() * STEP_APART_S * attempt)
        passed_s = clock.monotonic() - began
        if attempt and call.remaining_s is not None and passed_s >= call.remaining_s:
            raise Retry(TIMEOUT, "it conflicted until nobody waited for it any more")

    async def _marked(self, before: ResourceT) -> ResourceT:
        """The resource marked for deletion, if it may be, and is still as it was judged."""
        if before.meta.deleting_at is not None:
            return before
        if self._hooks.may_delete is not None:
            await self._hooks.may_delete(before)
        now = self._service.runtime.clock.now()
        marked = before.with_meta(deleting_at=now).with_status(phase=Phase.DELETING)
        return await self._all.write(before, marked)

    def _project(self, project: str | None) -> str | None:
        """The project, where the kind has one; asked for and not given is the caller's fault."""
        if self._kind.scope is Scope.CLUSTER:
            return None
        if project is None:
            raise Refused(MALFORMED, f"a {self._kind.name} lives in a project: none was named")
        return project

    def _same_revision(self, resource: ResourceT, revision: int | None) -> None:
        if revision is not None and revision != resource.meta.revision:
            raise Refused(
                REVISION,
                f"{self._kind.name} {resource.meta.name} has revision {resource.meta.revision}",
                hint="read it again, and decide anew",
            )

    def _patched(self, before: ResourceT, request: EditRequest) -> ResourceT:
        try:
            merged = merge_patch(before.spec.model_dump(mode="json"), request.spec)
            after = before.with_spec(type(before.spec).model_validate(merged))
            labels = {**before.meta.labels, **request.labels}
            after = after.with_meta(labels={k: v for k, v in labels.items() if v is not None})
        except ValidationError as error:
            raise malformed(error) from error
        if not self._hooks.finalizers:
            # Nobody has work with it: what was asked is what is.
            return after.with_status(observed_generation=after.meta.generation)
        return after


def merge_patch(target: Any, patch: Any) -> Any:
    """`patch` merged into `target` after RFC 7396: null removes, objects merge, else replace."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def immutable(before: Model, after: Model, *fields: str) -> None:
    """Refuse a change of any of these fields of a spec."""
    changed = [f for f in fields if getattr(before, f) != getattr(after, f)]
    if changed:
        errors = tuple(FieldError(where=f"spec.{f}", message="can't be changed") for f in changed)
        raise Refused(IMMUTABLE, f"{', '.join(changed)} can't be changed", errors=errors)


def _matches(resource: ResourceT, request: ListRequest) -> bool:
    if request.owner and (resource.meta.owner is None or resource.meta.owner.id != request.owner):
        return False
    if request.label:
        key, _, value = request.label.partition("=")
        return resource.meta.labels.get(key) == value
    return True


def _encode_cursor(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode()


def _decode_cursor(cursor: str | None) -> str | None:
    if cursor is None:
        return None
    try:
        return base64.urlsafe_b64decode(cursor.encode()).decode()
    except ValueError as error:
        raise Refused(INVALID, "cursor: not one that a list gave") from error


def serve_crud(service: Service, crud: Crud[ResourceT], hooks: Hooks[ResourceT]) -> None:
    """Answer the common operations that `crud` declares."""
    handlers = CrudHandlers(service, service.collection(crud.kind), hooks)
    for endpoint in crud.endpoints:
        service.handle(endpoint, getattr(handlers, endpoint.verb))
