"""The audit trail in the store: blocks of records under `audit.<first seq>`, made once.

A block is created only where none is, so instances that append at the same moment can't fork
the chain: the one that loses reads the winner's block and hangs its own behind it. The head is
kept under a key of its own, so that a trail whose end was cut off is seen to be too short. A
request id is recorded once among the last `KNOWN_REQUESTS`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right, insort
from collections import OrderedDict

from trivet.contracts.errors import CONFLICT, TIMEOUT, Refused, Retry
from trivet.contracts.security.audit import AuditEntry, AuditRecord
from trivet.runtime.cas import change_value
from trivet.runtime.store import Change, Store
from trivet.security.domain.audit import (
    Head,
    Verdict,
    chain,
    decode,
    encode,
    head_of,
    verify,
)

PREFIX = "audit."
HEAD_KEY = "audit_head.newest"
HEAD_PREFIX = "audit_head."
BLOCK_RECORDS = 500
KNOWN_REQUESTS = 100_000
APPEND_ATTEMPTS = 50
READS_AT_ONCE = 16


def block_key(seq: int) -> str:
    """The key of the block that begins with record `seq`; keys sort as numbers do."""
    return f"{PREFIX}{seq:012d}"


class AuditTrail:
    """Appends to, reads and checks the trail. Fed by the service's watch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._head = Head()
        self._firsts: list[int] = []
        self._requests: OrderedDict[str, None] = OrderedDict()
        self._lock = asyncio.Lock()

    def take(self, change: Change) -> None:
        """A step of the watch over `audit.`: a block that this or another instance wrote."""
        if change.value is not None:
            self._learn(int(change.key.removeprefix(PREFIX)), change.value)

    def take_head(self, change: Change) -> None:
        """A step of the watch over the head."""
        if change.value is not None:
            self._advance(Head.model_validate_json(change.value))

    async def append(self, entries: tuple[AuditEntry, ...]) -> int:
        """Record what is not recorded yet; returns the newest sequence number."""
        async with self._lock:
            for start in range(0, len(entries), BLOCK_RECORDS):
                await self._append_block(entries[start : start + BLOCK_RECORDS])
            return self._head.seq

    async def _append_block(self, entries: tuple[AuditEntry, ...]) -> None:
        for _ in range(APPEND_ATTEMPTS):
            new = {e.request_id: e for e in entries if e.request_id not in self._requests}
            if not new:
                return
            records = chain(new.values(), self._head)
            value = encode(records)
            try:
                await self._store.create(block_key(records[0].seq), value)
            except Refused as error:
                if error.code is not CONFLICT:
                    raise
                await self._catch_up()
                continue
            except Retry as error:
                if error.code is not TIMEOUT:
                    raise
                # It may have been written: the block itself tells, at the next attempt.
                await self._catch_up()
                continue
            self._learn(records[0].seq, value)
            await self._write_head(head_of(records))
            return
        raise Retry(CONFLICT, "too many append to the audit trail at once", retry_after_s=0.5)

    async def _catch_up(self) -> None:
        """Read the blocks that others have written behind our head."""
        while (entry := await self._store.get(block_key(self._head.seq + 1))) is not None:
            before = self._head.seq
            self._learn(before + 1, entry.value)
            if self._head.seq == before:
                raise Retry(CONFLICT, f"audit block {before + 1} can't be read", retry_after_s=5.0)

    async def _write_head(self, head: Head) -> None:
        await change_value(self._store, HEAD_KEY, Head, lambda there: _newer(there, head))

    async def list(self, since_seq: int | None, limit: int) -> tuple[AuditRecord, ...]:
        """Records from `since_seq` on (None: the last ones), at most `limit`."""
        first = since_seq if since_seq is not None else max(1, self._head.seq - limit + 1)
        found: list[AuditRecord] = []
        at = max(0, bisect_right(self._firsts, first) - 1)
        while at < len(self._firsts) and len(found) < limit:
            some = self._firsts[at : at + READS_AT_ONCE]
            entries = await asyncio.gather(*(self._store.get(block_key(seq)) for seq in some))
            records = [r for e in entries if e is not None for r in decode(e.value)]
            found.extend(r for r in records if r is not None and r.seq >= first)
            at += READS_AT_ONCE
        return tuple(found[:limit])

    async def verify(self) -> Verdict:
        """Check all that the store holds."""
        # The head is read first: what is appended meanwhile only makes the trail longer.
        entry = await self._store.get(HEAD_KEY)
        head = Head.model_validate_json(entry.value) if entry is not None else None
        blocks: dict[str, bytes] = {}
        async for step in self._store.watch(PREFIX):
            if not isinstance(step, Change):
                break
            if step.value is not None:
                blocks[step.key] = step.value
        records = (record for key in sorted(blocks) for record in decode(blocks[key]))
        return verify(records, head)

    def _learn(self, first: int, value: bytes) -> None:
        position = bisect_right(self._firsts, first)
        if position and self._firsts[position - 1] == first:
            return
        records = tuple(r for r in decode(value) if r is not None)
        insort(self._firsts, first)
        for record in records:
            self._requests[record.entry.request_id] = None
        while len(self._requests) > KNOWN_REQUESTS:
            self._requests.popitem(last=False)
        if records:
            self._advance(head_of(records))

    def _advance(self, head: Head) -> None:
        if head.seq > self._head.seq:
            self._head = head


def _newer(there: Head | None, head: Head) -> Head:
    return there if there is not None and there.seq >= head.seq else head
