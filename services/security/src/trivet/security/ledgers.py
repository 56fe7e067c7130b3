"""The projects' ledgers in the store: one key a project that has limits, changed by
compare-and-swap alone."""

from __future__ import annotations

from collections.abc import Callable

from trivet.contracts.errors import CONFLICT, Refused, Retry
from trivet.contracts.model import ResourceId
from trivet.contracts.security.quota import Ledger
from trivet.runtime.store import Change, Store
from trivet.security.domain.quotas import usage

PREFIX = "quota."
ATTEMPTS = 30


class Ledgers:
    """Reads and changes ledgers. Fed by the service's watch, so that usage costs no read."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._usage: dict[str, dict[str, int]] = {}
        self._projects: dict[ResourceId, str] = {}
        self._ids: dict[str, frozenset[ResourceId]] = {}

    def take(self, change: Change) -> None:
        """A step of the watch."""
        project = change.key.removeprefix(PREFIX)
        ledger = Ledger.model_validate_json(change.value) if change.value else Ledger()
        self._usage[project] = usage(ledger)
        for resource in self._ids.get(project, frozenset()) - ledger.claims.keys():
            self._projects.pop(resource, None)
        self._projects |= dict.fromkeys(ledger.claims, project)
        self._ids[project] = frozenset(ledger.claims)

    def usage(self, project: str) -> dict[str, int]:
        """What is claimed in a project, as of about now."""
        return self._usage.get(project, {})

    def project_of(self, resource: ResourceId) -> str | None:
        """In whose ledger there is a claim of that id, as of about now."""
        return self._projects.get(resource)

    async def change(self, project: str, decide: Callable[[Ledger], Ledger]) -> None:
        """Make the ledger what `decide` says of it; asked again after a conflict, may raise."""
        key = f"{PREFIX}{project}"
        for _ in range(ATTEMPTS):
            entry = await self._store.get(key)
            before = Ledger.model_validate_json(entry.value) if entry else Ledger()
            after = decide(before)
            if after == before:
                return
            value = after.model_dump_json().encode()
            try:
                if entry is None:
                    await self._store.create(key, value)
                else:
                    await self._store.update(key, value, entry.revision)
                return
            except Refused as error:
                if error.code is not CONFLICT:
                    raise
        raise Retry(CONFLICT, f"too many claim in project {project} at once", retry_after_s=0.2)

    async def forget(self, project: str) -> None:
        """Remove the ledger of a project that is gone, or has no limits any more."""
        entry = await self._store.get(f"{PREFIX}{project}")
        if entry is not None:
            await self._store.delete(entry.key, entry.revision)
