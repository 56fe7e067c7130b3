"""The audit trail: who did what, from where, with what result. Append-only, hash-chained.

Each record carries the hash of the one before it, so a record that is changed, removed or
put in between is found by `verify`, which names the first one that is wrong.
"""

from __future__ import annotations

from datetime import datetime

from trivet.contracts.model import Model


class AuditEntry(Model):
    """What is to be recorded: one call that changes something, or one that was refused."""

    at: datetime
    user: str
    token_id: str | None
    address: str | None
    op: str
    project: str | None
    target: str | None
    outcome: str
    request_id: str
    detail: str = ""


class AuditRecord(Model):
    """An entry in its place: `seq` from 1, `previous` the hash before, `hash` its own."""

    seq: int
    previous: str
    hash: str
    entry: AuditEntry
