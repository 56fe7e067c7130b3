"""The chain of the audit trail: how records hang on each other, and where it is broken.

A record's hash covers its place, the hash before it and its entry, in one canonical spelling.
So a record that was changed breaks its own hash, one that was removed, put in between or moved
breaks its neighbour's. What was cut off at the end is told by the head, which is kept apart.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from trivet.contracts.model import Model
from trivet.contracts.security.audit import AuditEntry, AuditRecord

GENESIS = "0" * 64


class Head(Model):
    """The newest record's place and hash."""

    seq: int = 0
    hash: str = GENESIS


@dataclass(frozen=True)
class Verdict:
    """`first_bad_seq` None: intact."""

    records: int
    head: Head
    first_bad_seq: int | None = None
    reason: str = ""


def hash_of(seq: int, previous: str, entry: AuditEntry) -> str:
    """The hash of a record: SHA-256 over its canonical JSON."""
    body = {"seq": seq, "previous": previous, "entry": entry.model_dump(mode="json")}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def chain(entries: Iterable[AuditEntry], head: Head) -> tuple[AuditRecord, ...]:
    """Records that continue the chain after `head`."""
    records: list[AuditRecord] = []
    seq, previous = head.seq, head.hash
    for entry in entries:
        seq += 1
        own = hash_of(seq, previous, entry)
        records.append(AuditRecord(seq=seq, previous=previous, hash=own, entry=entry))
        previous = own
    return tuple(records)


def head_of(records: tuple[AuditRecord, ...]) -> Head:
    """The head after these records."""
    return Head(seq=records[-1].seq, hash=records[-1].hash)


def encode(records: Iterable[AuditRecord]) -> bytes:
    """Records as JSON lines."""
    return b"\n".join(r.model_dump_json().encode() for r in records)


def decode(block: bytes) -> tuple[AuditRecord | None, ...]:
    """The records in JSON lines; None for a line that is none."""
    return tuple(_record(line) for line in block.split(b"\n") if line.strip())


def _record(line: bytes) -> AuditRecord | None:
    try:
        return AuditRecord.model_validate_json(line)
    except ValidationError:
        return None


def repair_entry(node: str, by: str, now: datetime) -> AuditEntry:
    """What is recorded when a node's firewall rules had to be put back."""
    return AuditEntry(
        at=now,
        user="service:security",
        token_id=None,
        address=None,
        op="firewall.repair",
        project=None,
        target=node,
        outcome="repaired",
        request_id=f"repair-{node}-{now.isoformat()}",
        detail=f"the rules of this node's ports were changed by {by}",
    )


def verify(records: Iterable[AuditRecord | None], head: Head | None) -> Verdict:
    """Follow the chain from its beginning; stop at the first record that is wrong."""
    at = Head()
    count = 0
    for record in records:
        expected = at.seq + 1
        reason = _wrong(record, at)
        if reason is not None or record is None:
            return Verdict(count, at, expected, reason or "")
        at = Head(seq=record.seq, hash=record.hash)
        count += 1
        if head is not None and head.seq == at.seq and head.hash != at.hash:
            return Verdict(count, at, at.seq, f"record {at.seq} is not the one that was written")
    if head is not None and head.seq > at.seq:
        return Verdict(count, at, at.seq + 1, f"records {at.seq + 1} to {head.seq} are missing")
    return Verdict(count, at)


def _wrong(record: AuditRecord | None, at: Head) -> str | None:
    if record is None:
        return f"record {at.seq + 1} can't be read"
    if record.seq > at.seq + 1:
        return f"record {at.seq + 1} is missing: {record.seq} comes after {at.seq}"
    if record.seq <= at.seq:
        return f"record {record.seq} is there again after {at.seq}"
    if record.hash != hash_of(record.seq, record.previous, record.entry):
        return f"record {record.seq} was changed"
    if record.previous != at.hash:
        return f"record {record.seq} does not follow from the one before it"
    return None
