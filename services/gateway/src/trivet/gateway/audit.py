"""The gateway's side of the audit trail: entries wait here until the security service has them.

A reply never waits for the trail: an entry goes into a bounded queue and is sent in batches, in
order, again and again until it is appended (the service records a request id once). On disk it
is before the reply is sent (`audit_spool`), so that no end of this process loses it. What the
queue can't take goes to the log in full, so that it is somewhere. A stop sends what is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from trivet.contracts.errors import Retry, TrivetError
from trivet.contracts.security.audit import AuditEntry
from trivet.contracts.security.endpoints.audit_append import ENDPOINT as APPEND
from trivet.contracts.security.endpoints.audit_append import AppendRequest
from trivet.gateway.audit_spool import UNKNOWN, AuditSpool, Note
from trivet.gateway.limits import Limits
from trivet.runtime.call import Client

log = logging.getLogger(__name__)


class AuditQueue:
    """Entries on their way to the trail."""

    def __init__(self, client: Client, limits: Limits, spool: AuditSpool | None = None) -> None:
        self._client = client
        self._spool = spool
        self._limits = limits
        self._waiting: deque[AuditEntry] = deque(spool.left if spool else ())
        self._some = asyncio.Event()
        if self._waiting:
            self._some.set()
        self._sending = asyncio.Lock()

    def begin(self, entry: AuditEntry) -> None:
        """A call is about to be made; `entry` says which. Raises `Retry` where that can't be
        written down: then the call is not made."""
        if self._spool is not None:
            self._spool.note(Note(what="begun", entry=entry))

    def end(self, entry: AuditEntry) -> None:
        """A call is over. One that began and of which nothing was recorded was cut short."""
        if self._spool is not None and self._spool.under_way(entry.request_id):
            self.record(entry.model_copy(update={"outcome": UNKNOWN, "detail": "cut short"}))

    async def saved(self) -> None:
        """Wait until what was recorded is on disk."""
        if self._spool is not None:
            await self._spool.saved()

    def record(self, entry: AuditEntry) -> None:
        """Take an entry; never waits, never raises."""
        if self._spool is not None:
            try:
                self._spool.note(Note(what="done", entry=entry))
            except Retry as error:
                # It is still in the queue, so only an end of this process could lose it.
                log.error("%s; entry: %s", error.detail, entry.model_dump_json())  # noqa: TRY400
        if len(self._waiting) >= self._limits.audit_queue:
            log.error("audit queue full; entry: %s", entry.model_dump_json())
            return
        self._waiting.append(entry)
        self._some.set()

    async def run(self) -> None:
        """Send what comes, until cancelled."""
        while True:
            await self._some.wait()
            try:
                await self._send()
            except TrivetError as error:
                log.warning("%d audit entries wait: %s", len(self._waiting), error)
                await asyncio.sleep(self._limits.audit_retry_s)

    async def flush(self) -> None:
        """Send what is left, within a bound; what can't be sent goes to the log."""
        try:
            async with asyncio.timeout(self._limits.audit_flush_s):
                await self._send()
        except (TrivetError, TimeoutError) as error:
            log.error("audit entries could not be appended: %s", error)  # noqa: TRY400
            for entry in self._waiting:
                log.error("audit entry not appended: %s", entry.model_dump_json())  # noqa: TRY400
        finally:
            if self._spool is not None:
                self._spool.close()
                self._spool = None

    async def _send(self) -> None:
        """Send all that waits, in order; an entry leaves the queue once it is appended."""
        async with self._sending:
            while self._waiting:
                size = min(len(self._waiting), self._limits.audit_batch)
                batch = tuple(self._waiting[i] for i in range(size))
                await self._client.call(APPEND, AppendRequest(entries=batch))
                for _ in batch:
                    self._waiting.popleft()
                if self._spool is not None:
                    self._spool.sent(batch)
            self._some.clear()
