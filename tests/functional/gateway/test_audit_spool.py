"""Audit entries outlive the gateway: what was answered is in the trail, what was cut is told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from trivet.contracts.errors import UNAVAILABLE, Retry
from trivet.contracts.security.audit import AuditEntry
from trivet.contracts.security.endpoints.audit_append import AppendRequest, AppendResponse
from trivet.gateway import audit_spool
from trivet.gateway.audit import AuditQueue
from trivet.gateway.audit_spool import AuditSpool, Note
from trivet.gateway.limits import Limits


def entry(n: int, outcome: str = "ok") -> AuditEntry:
    return AuditEntry(
        at=datetime(2026, 1, 1, tzinfo=UTC), user="ann", token_id=None, address=None,
        op="vm.create", project="p", target=f"vm-{n}", outcome=outcome, request_id=f"r{n}",
    )  # fmt: skip


class Trail:
    """A client whose security service can be away."""

    def __init__(self) -> None:
        self.away = True
        self.entries: list[AuditEntry] = []

    async def call(self, endpoint: Any, request: AppendRequest) -> AppendResponse:
        if self.away:
            raise Retry(UNAVAILABLE, "away")
        self.entries += request.entries
        return AppendResponse(last_seq=len(self.entries))


def queue(trail: Trail, file: Path) -> AuditQueue:
    return AuditQueue(trail, Limits(audit_flush_s=1), AuditSpool(file))  # type: ignore[arg-type]


async def test_what_was_answered_outlives_a_kill(tmp_path: Path) -> None:
    file, trail = tmp_path / "spool", Trail()
    killed = queue(trail, file)
    for n in range(3):
        killed.begin(entry(n))
        killed.record(entry(n, "ok" if n else "resource.name_taken"))
    await killed.saved()
    killed.begin(entry(3))
    # A line that the kill cut in the middle.
    with file.open("ab") as stream:
        stream.write(b'{"what":"done","entry":{"at":')
    trail.away = False
    await queue(trail, file).flush()
    told = [(e.target, e.outcome) for e in trail.entries]
    assert told == [
        ("vm-0", "resource.name_taken"),
        ("vm-1", "ok"),
        ("vm-2", "ok"),
        ("vm-3", "unknown"),
    ]
    assert file.read_bytes() == b""
    assert file.stat().st_mode & 0o777 == 0o600


async def test_what_could_not_be_sent_before_a_stop_is_sent_after_it(tmp_path: Path) -> None:
    file, trail = tmp_path / "spool", Trail()
    first = queue(trail, file)
    first.begin(entry(1))
    first.record(entry(1))
    await first.flush()
    trail.away = False
    second = queue(trail, file)
    await second.flush()
    assert [e.target for e in trail.entries] == ["vm-1"]


async def test_a_call_that_was_cut_short_is_recorded(tmp_path: Path) -> None:
    trail = Trail()
    trail.away = False
    audit = queue(trail, tmp_path / "spool")
    audit.begin(entry(1))
    audit.end(entry(1))
    audit.begin(entry(2))
    audit.record(entry(2))
    audit.end(entry(2))
    await audit.flush()
    assert [(e.target, e.outcome) for e in trail.entries] == [("vm-1", "unknown"), ("vm-2", "ok")]


async def test_a_file_that_grew_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_spool, "GROWN_BYTES", 2000)
    spool = AuditSpool(tmp_path / "spool")
    spool.note(Note(what="begun", entry=entry(0)))
    for n in range(1, 40):
        spool.note(Note(what="done", entry=entry(n)))
        spool.sent([entry(n)])
    assert (tmp_path / "spool").stat().st_size < 2500
    spool.close()
    again = AuditSpool(tmp_path / "spool")
    # Some of what was sent is there still: the trail records each request once.
    assert [e.outcome for e in again.left if e.target == "vm-0"] == ["unknown"]
    again.close()


async def test_those_who_wait_share_one_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(audit_spool.os, "fdatasync", synced.append)
    spool = AuditSpool(tmp_path / "spool")

    async def answer(n: int) -> None:
        spool.note(Note(what="done", entry=entry(n)))
        await spool.saved()

    await asyncio.gather(*(answer(n) for n in range(50)))
    assert 1 <= len(synced) <= 3
    spool.close()


@pytest.mark.parametrize("fits", [0, 20])
async def test_on_a_full_disk_no_call_is_begun_and_none_under_way_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: int
) -> None:
    """`fits`: how much of a line still finds space."""
    file, trail = tmp_path / "spool", Trail()
    entries = queue(trail, file)
    entries.begin(entry(0))
    before = file.read_bytes()
    real = audit_spool.os.write

    def full(descriptor: int, line: bytes) -> int:
        if not fits:
            raise OSError(28, "No space left on device")
        return real(descriptor, line[:fits])

    with monkeypatch.context() as patch:
        patch.setattr(audit_spool.os, "write", full)
        with pytest.raises(Retry, match="No space left"):
            entries.begin(entry(1))
        entries.record(entry(0))
        entries.end(entry(0))
        assert file.read_bytes() == before
    trail.away = False
    await entries.flush()
    assert [(e.target, e.outcome) for e in trail.entries] == [("vm-0", "ok")]
