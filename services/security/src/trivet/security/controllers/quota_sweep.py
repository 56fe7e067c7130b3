"""Keeps the ledgers of quotas true: what was deleted is given back, what was missed is mended.

An event of a deletion gives back at once. From time to time, and when a project's limits are
changed, everything that is limited is listed and compared; a service that can't be asked leaves
the ledger as it is, since not hearing of something does not mean that it is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

from trivet.contracts.endpoint import SERVICES, Endpoint, ListRequest, declared
from trivet.contracts.event import CloudEvent
from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Amounts
from trivet.contracts.security.identity import Project
from trivet.runtime.reconcile import Reconciler
from trivet.runtime.service import Runtime
from trivet.security.domain.quotas import mended, without
from trivet.security.ledgers import Ledgers
from trivet.security.parts import People

log = logging.getLogger(__name__)

PAGE = 1000
LOOKS = 4
"""A full look costs a list of everything, so it is rarer than others."""


def limited() -> tuple[Endpoint[Any, Any], ...]:
    """The list operations of all kinds that take of a quota."""
    return tuple(
        e
        for name in SERVICES
        for e in declared(name)
        if e.verb == "list" and e.kind is not None and e.kind.takes is not None
    )


class QuotaSweep:
    """Reconciles the ledgers of projects that have limits."""

    def __init__(self, runtime: Runtime, people: People, ledgers: Ledgers) -> None:
        self._runtime = runtime
        self._projects = people.projects
        self._ledgers = ledgers
        self._lists = limited()
        self._seen: dict[str, int] = {}
        self._reconciler = Reconciler(
            "quotas",
            self._reconcile,
            clock=runtime.clock,
            keys=self._projects.keys,
            bound=2,
            resync_s=runtime.settings.security.look_s * LOOKS,
        )
        self._projects.on_change(self._changed)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        await self._reconciler.run()

    async def deleted(self, event: CloudEvent) -> None:
        """Something is gone: what it took is free again."""
        project = event.data.project
        if not event.type.endswith(".deleted.v1") or project is None:
            return
        if self._ledgers.project_of(event.data.id) == project:
            await self._ledgers.change(project, partial(without, resource=event.data.id))

    def _changed(self, key: str) -> None:
        """Look when limits may have changed, not at every word of a project's status."""
        project = self._projects.by_key(key)
        generation = project.meta.generation if project else 0
        if self._seen.get(key) != generation:
            self._seen[key] = generation
            self._reconciler.wake(key)

    async def _reconcile(self, key: str) -> float | None:
        project = self._projects.by_key(key)
        if project is None:
            await self._ledgers.forget(key.rpartition(".")[2])
            return None
        if not project.spec.quotas.limits:
            if self._ledgers.usage(project.meta.name):
                await self._ledgers.forget(project.meta.name)
            return None
        await self._mend(project)
        return None

    async def _mend(self, project: Project) -> None:
        there: dict[ResourceId, Amounts] = {}
        for endpoint in self._lists:
            there |= await self._listed(endpoint, project.meta.name)
        now = self._runtime.clock.now()
        await self._ledgers.change(project.meta.name, partial(mended, there=there, now=now))

    async def _listed(
        self, endpoint: Endpoint[Any, Any], project: str
    ) -> Mapping[ResourceId, Amounts]:
        kind, cursor = endpoint.kind, None
        assert kind is not None
        assert kind.takes is not None
        found: dict[ResourceId, Amounts] = {}
        while True:
            request = ListRequest(project=project, limit=PAGE, cursor=cursor)
            page = await self._runtime.client.call(endpoint, request)
            found |= {r.meta.id: kind.takes(r) for r in page.items}
            cursor = page.cursor
            if cursor is None:
                return found
