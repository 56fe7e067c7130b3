"""Leadership: one instance of a service leads, by a lease in the store.

The record `lease.<name>` names a holder and a turn, which every renewal raises. Clocks of two
machines are never compared: another takes over only when it has itself seen the record
unchanged for the whole `ttl_s` on its own monotonic clock. The holder counts from the moment it
*sent* its last good renewal, which is before anybody could see it, and stops its work a margin
before `ttl_s` is over. Both rules are `decide` and `work_until`, pure; `Lease` is the shell.

Leadership is for order, not for safety: a process that was paused for long may believe that it
leads until it runs again. What leaders do is guarded by compare-and-swap or an epoch.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from trivet.contracts.errors import CONFLICT, Refused, Retry
from trivet.contracts.model import Model
from trivet.runtime.clock import Clock
from trivet.runtime.store import Store

log = logging.getLogger(__name__)

TTL_S = 8.0
RENEW_S = 2.0
LOOK_S = 1.0
STOP_MARGIN_S = 2.0
RETRY_S = 0.2
RELEASE_TIMEOUT_S = 1.0

Work = Callable[[], Awaitable[None]]


class LeaseRecord(Model):
    """Who holds the lease; '' nobody (it was released). `turn` grows with every write."""

    holder: str
    turn: int


@dataclass(frozen=True)
class Seen:
    """The record as last read, and since when (monotonic) it is known to be just so."""

    record: LeaseRecord
    revision: int
    since: float


@dataclass(frozen=True)
class Take:
    """Take the lease, over `revision` (0: there is no record)."""

    revision: int
    turn: int


@dataclass(frozen=True)
class Wait:
    """Look again after that many seconds."""

    seconds: float


def decide(
    seen: Seen | None, me: str, now: float, ttl_s: float = TTL_S, predecessors: str = "\0"
) -> Take | Wait:
    """What one who does not hold the lease does. First rule that fits:

    no record: take it · released: take it · mine (a write of mine happened that I could not
    see): take it · a predecessor's, which is dead (its holder begins with `predecessors`): take
    it · unchanged for the whole ttl: take it · else wait.
    """
    if seen is None:
        return Take(0, 1)
    free = seen.record.holder in ("", me) or seen.record.holder.startswith(predecessors)
    if free or now - seen.since >= ttl_s:
        return Take(seen.revision, seen.record.turn + 1)
    return Wait(min(LOOK_S, seen.since + ttl_s - now))


def observe(before: Seen | None, record: LeaseRecord, revision: int, now: float) -> Seen:
    """What is known after reading the record: `since` stays while the revision does."""
    if before is not None and before.revision == revision:
        return before
    return Seen(record, revision, now)


def work_until(sent_at: float, ttl_s: float = TTL_S, margin_s: float = STOP_MARGIN_S) -> float:
    """Until when (monotonic) the holder may work, if its last good write was sent then."""
    return sent_at + ttl_s - margin_s


@dataclass
class _Held:
    """A lease in hand."""

    revision: int
    turn: int
    sent_at: float


class Lease:
    """One instance's part in the contest for `lease.<name>`."""

    def __init__(
        self,
        store: Store,
        name: str,
        holder: str,
        clock: Clock,
        *,
        ttl_s: float = TTL_S,
        alone: bool = False,
    ) -> None:
        """`alone`: no other process of the name `holder` can be alive (a lock on its node
        says so), so what an earlier one left behind is taken at once."""
        # The token tells a restarted process from the one before it.
        self.holder = f"{holder}/{secrets.token_hex(4)}"
        self._predecessors = f"{holder}/" if alone else "\0"
        self.held = False
        self._store = store
        self._key = f"lease.{name}"
        self._clock = clock
        self._ttl_s = ttl_s
        self._scale = ttl_s / TTL_S

    async def hold(self, work: Work) -> None:
        """Wait for the lease, then run `work` while it is held; returns when `work` does, or
        after it was cancelled because the lease could not be kept. An error of `work` passes.
        """
        held = await self._acquire()
        working = asyncio.ensure_future(work())
        keeping = asyncio.create_task(self._keep(held))
        self.held = True
        try:
            await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.held = False
            lost = keeping.done()
            await _cancel(working)
            await _cancel(keeping)
            if not lost:
                await self._release(held)
        if working.done() and not working.cancelled():
            working.result()

    async def _acquire(self) -> _Held:
        seen: Seen | None = None
        while True:
            try:
                entry = await self._store.get(self._key)
                now = self._clock.monotonic()
                if entry is None:
                    seen = None
                else:
                    record = LeaseRecord.model_validate_json(entry.value)
                    seen = observe(seen, record, entry.revision, now)
                todo = decide(seen, self.holder, now, self._ttl_s, self._predecessors)
                if isinstance(todo, Take):
                    return await self._write(self.holder, todo.turn, todo.revision)
                await self._clock.sleep(todo.seconds)
            except Refused as error:
                if error.code is not CONFLICT:
                    raise
                await self._clock.sleep(RETRY_S)
            except Retry as error:
                log.info("%s: %s", self._key, error)
                await self._clock.sleep(LOOK_S * self._scale)

    async def _keep(self, held: _Held) -> None:
        """Renew until that fails for good: the lease was taken, or the time is over."""
        while True:
            await self._clock.sleep(RENEW_S * self._scale)
            try:
                left = self._until(held) - self._clock.monotonic()
                async with asyncio.timeout(max(left, 0)):
                    await self._renew(held)
            except TimeoutError:
                log.warning("%s: not renewed in time; %s leads no more", self._key, self.holder)
                return
            except Refused as error:
                log.warning("%s: taken by another (%s)", self._key, error)
                return

    async def _renew(self, held: _Held) -> None:
        """Raise the turn, over failures that leave it open whether the write happened."""
        attempt_at: float | None = None
        while True:
            try:
                if attempt_at is not None and await self._happened(held, attempt_at):
                    return
                attempt_at = self._clock.monotonic()
                fresh = await self._write(self.holder, held.turn + 1, held.revision)
            except Retry as error:
                log.info("%s: %s", self._key, error)
                await self._clock.sleep(RETRY_S * self._scale)
            else:
                held.revision, held.turn, held.sent_at = fresh.revision, fresh.turn, fresh.sent_at
                return

    async def _happened(self, held: _Held, attempt_at: float) -> bool:
        entry = await self._store.get(self._key)
        if entry is None:
            raise Refused(CONFLICT, f"{self._key} is gone")
        wanted = LeaseRecord(holder=self.holder, turn=held.turn + 1)
        if LeaseRecord.model_validate_json(entry.value) != wanted:
            return False
        held.revision, held.turn, held.sent_at = entry.revision, wanted.turn, attempt_at
        return True

    async def _write(self, holder: str, turn: int, revision: int) -> _Held:
        value = LeaseRecord(holder=holder, turn=turn).model_dump_json().encode()
        sent_at = self._clock.monotonic()
        if revision == 0:
            written = await self._store.create(self._key, value)
        else:
            written = await self._store.update(self._key, value, revision)
        return _Held(written, turn, sent_at)

    async def _release(self, held: _Held) -> None:
        """Let others in at once; if that fails they wait for the ttl."""
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self._write("", held.turn + 1, held.revision)
        except (TimeoutError, Refused, Retry) as error:
            log.info("%s: not released: %s", self._key, error)

    def _until(self, held: _Held) -> float:
        return work_until(held.sent_at, self._ttl_s, STOP_MARGIN_S * self._scale)

    def __repr__(self) -> str:
        return f"<Lease {self._key} {self.holder} {'held' if self.held else 'waiting'}>"


async def _cancel(task: asyncio.Future[None]) -> None:
    """Cancel and wait for the end, even while being cancelled oneself."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
