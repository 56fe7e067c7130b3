"""The audit trail behind the service's endpoints."""

from __future__ import annotations

from datetime import UTC, datetime

from trivet.contracts.endpoint import (
    Nothing,
)
from trivet.contracts.security.audit import AuditEntry
from trivet.contracts.security.endpoints.audit_append import ENDPOINT as APPEND
from trivet.contracts.security.endpoints.audit_append import AppendRequest
from trivet.contracts.security.endpoints.audit_list import ENDPOINT as AUDIT_LIST
from trivet.contracts.security.endpoints.audit_list import AuditListRequest
from trivet.contracts.security.endpoints.audit_verify import ENDPOINT as AUDIT_VERIFY
from trivet.testing.security_world import World


def entry(n: int) -> AuditEntry:
    return AuditEntry(
        at=datetime(2026, 1, 1, tzinfo=UTC),
        user="admin",
        token_id=None,
        address="192.0.2.1",
        op="vm.create",
        project="default",
        target=f"vm-{n}",
        outcome="ok",
        request_id=f"r{n}",
    )


async def test_the_audit_trail_keeps_each_request_once(world: World) -> None:
    call = world.harness.call
    first = AppendRequest(entries=(entry(1), entry(2)))
    assert (await call(APPEND, first)).last_seq == 2
    assert (await call(APPEND, first)).last_seq == 2
    assert (await call(APPEND, AppendRequest(entries=(entry(2), entry(3))))).last_seq == 3
    await world.harness.crash("security")
    await world.start()
    assert (await call(APPEND, AppendRequest(entries=(entry(3), entry(4))))).last_seq == 4
    page = await call(AUDIT_LIST, AuditListRequest(limit=3))
    assert [r.entry.target for r in page.records] == ["vm-2", "vm-3", "vm-4"]
    page = await call(AUDIT_LIST, AuditListRequest(since_seq=1, limit=1))
    assert [r.seq for r in page.records] == [1]
    report = await call(AUDIT_VERIFY, Nothing())
    assert (report.intact, report.records) == (True, 4)


async def test_a_changed_record_is_found(world: World) -> None:
    for n in range(1, 4):
        await world.harness.call(APPEND, AppendRequest(entries=(entry(n),)))
    store = world.harness.store("security")
    key = "audit.000000000002"
    kept = await store.get(key)
    assert kept is not None
    revision = await store.update(key, kept.value.replace(b"vm-2", b"vm-9"), kept.revision)
    report = await world.harness.call(AUDIT_VERIFY, Nothing())
    assert (report.intact, report.first_bad_seq) == (False, 2)
    await store.delete(key, revision)
    report = await world.harness.call(AUDIT_VERIFY, Nothing())
    assert (report.intact, report.first_bad_seq) == (False, 2)


async def test_a_trail_that_was_cut_off_is_found(world: World) -> None:
    for n in range(1, 3):
        await world.harness.call(APPEND, AppendRequest(entries=(entry(n),)))
    store = world.harness.store("security")
    kept = await store.get("audit.000000000002")
    assert kept is not None
    await store.delete("audit.000000000002", kept.revision)
    report = await world.harness.call(AUDIT_VERIFY, Nothing())
    assert (report.intact, report.first_bad_seq) == (False, 2)
