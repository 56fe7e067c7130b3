"""The operations of one kind, typed: `client.kind(VM).get("web")` is a `Vm`.

What all kinds have in common is here; an action of one kind is `client.call(ENDPOINT, request)`,
which is typed as well, or `client.vms.start("web")`, which is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, cast

from trivet.contracts.endpoint import Endpoint, Page
from trivet.contracts.errors import NOT_SUPPORTED, Refused
from trivet.contracts.model import Model
from trivet.contracts.resource import Kind, ResourceT

PAGE = 500
Call = Callable[[Endpoint[Any, Any], "str | None", dict[str, Any], float, "str | None"], Any]


class Resources(Generic[ResourceT]):
    """The resources of one kind, in the client's project unless another is named."""

    def __init__(
        self, kind: Kind[ResourceT], endpoints: Mapping[str, Endpoint[Any, Any]], call: Call
    ) -> None:
        self.kind = kind
        self._endpoints = endpoints
        self._call = call

    def get(self, name: str, *, project: str | None = None, wait_s: float = 0) -> ResourceT:
        """One resource; with `wait_s`, once it has settled, or as it is by then."""
        return self._ask("get", name, _where(project), wait_s)

    def list(self, *, project: str | None = None, label: str | None = None) -> Iterator[ResourceT]:
        """All of a project, page by page as they are asked for; `label` is `key=value`."""
        fields: dict[str, Any] = {"limit": PAGE, **_where(project)}
        if label is not None:
            fields["label"] = label
        while True:
            page: Page[ResourceT] = self._call(self._operation("list"), None, fields, 0, None)
            yield from page.items
            if page.cursor is None:
                return
            fields["cursor"] = page.cursor

    def create(
        self,
        name: str,
        spec: Model | Mapping[str, Any] | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        project: str | None = None,
        wait_s: float = 0,
        key: str | None = None,
    ) -> ResourceT:
        """Make one; `key` is the idempotency key to make it under, else one of the client's."""
        given = spec if isinstance(spec, Model) else dict(spec or {})
        fields = {**_where(project), "spec": given, "labels": dict(labels or {})}
        return self._ask("create", name, fields, wait_s, key)

    def edit(
        self,
        name: str,
        spec: Mapping[str, Any] | None = None,
        *,
        labels: Mapping[str, str | None] | None = None,
        revision: int | None = None,
        project: str | None = None,
        wait_s: float = 0,
    ) -> ResourceT:
        """Merge a patch into its spec and labels; with `revision`, only if it still has it."""
        fields = {**_where(project), "spec": dict(spec or {}), "labels": dict(labels or {})}
        if revision is not None:
            fields["revision"] = revision
        return self._ask("edit", name, fields, wait_s)

    def delete(self, name: str, *, project: str | None = None, wait_s: float = 0) -> ResourceT:
        """Mark it for deletion; with `wait_s`, until it is gone."""
        return self._ask("delete", name, _where(project), wait_s)

    def _ask(
        self, verb: str, name: str, fields: dict[str, Any], wait_s: float, key: str | None = None
    ) -> ResourceT:
        return cast(ResourceT, self._call(self._operation(verb), name, fields, wait_s, key))

    def _operation(self, verb: str) -> Endpoint[Any, Any]:
        if verb not in self._endpoints:
            raise Refused(NOT_SUPPORTED, f"{self.kind.plural} have no operation {verb}")
        return self._endpoints[verb]

    def __repr__(self) -> str:
        return f"<Resources {self.kind.plural}>"


def _where(project: str | None) -> dict[str, Any]:
    return {} if project is None else {"project": project}
