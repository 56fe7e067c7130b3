"""What a service's instance tells of itself: who leads, and which events are not told yet.

Whether events are told late is seen from the same watch that fills the copies: a record with an
outbox is noted when it comes, and forgotten when it comes without. A busy publisher leaves told
items for a short while, so that it is their age that says something, not their number.
"""

from __future__ import annotations

from pydantic import ValidationError

from trivet.contracts.endpoint import Nothing
from trivet.contracts.service_status import ServiceStatus
from trivet.runtime.call import Call, EndpointHandler
from trivet.runtime.clock import Clock
from trivet.runtime.lease import LeaseRecord
from trivet.runtime.outbox import has_work
from trivet.runtime.store import Change, Store

LEAD = "lead"


class Untold:
    """The records that have events to tell, and since when (monotonic)."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since: dict[str, float] = {}
        self._keys: set[str] = set()

    def take(self, change: Change) -> None:
        """A step of the feed."""
        if change.value is None:
            self._keys.discard(change.key)
            self._since.pop(change.key, None)
            return
        self._keys.add(change.key)
        if has_work(change.value):
            self._since.setdefault(change.key, self._clock.monotonic())
        else:
            self._since.pop(change.key, None)

    @property
    def records(self) -> int:
        """How many keys there are."""
        return len(self._keys)

    def now(self) -> tuple[int, float]:
        """How many records, and for how many seconds the oldest."""
        oldest = min(self._since.values(), default=None)
        return len(self._since), self._clock.monotonic() - oldest if oldest is not None else 0.0


def status_handler(node: str, store: Store, untold: Untold, clock: Clock) -> EndpointHandler:
    """The handler of `service.status`."""
    began = clock.monotonic()

    async def status(request: Nothing, call: Call) -> ServiceStatus:
        entry = await store.get(f"lease.{LEAD}")
        leader = leader_of(entry.value) if entry else None
        count, oldest_s = untold.now()
        return ServiceStatus(
            node=node,
            leader=leader,
            unsent_events=count,
            unsent_s=round(oldest_s, 1),
            records=untold.records,
            up_s=round(clock.monotonic() - began, 1),
        )

    return status


def leader_of(value: bytes) -> str | None:
    """The node whose instance holds the lease; None: it is free, or can't be read."""
    try:
        holder = LeaseRecord.model_validate_json(value).holder
    except ValidationError:
        return None
    return holder.split("/")[0] or None
