"""How disks are judged, and which spares are used: tables and properties."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.contracts.model import ResourceId
from trivet.contracts.resource import Meta
from trivet.contracts.storage.disk import (
    Disk,
    DiskFacts,
    DiskHealth,
    DiskRole,
    DiskSpec,
    DiskStatus,
)
from trivet.contracts.storage.pool import Pool, PoolMember, PoolSpec, PoolStatus
from trivet.plugins.storage.disk_probe import smart_words
from trivet.storage.domain.disk_health import Finding, Limits, Sample, find
from trivet.storage.domain.disks import found, is_of_use, judged, missing
from trivet.storage.domain.places import Places, disk_view
from trivet.storage.domain.spares import UseSpare, spares_used

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits(slow_ms=25, isolate_ms=125, window_s=20, stuck_s=3)
OK, WARNED = DiskHealth.OK, DiskHealth.WARNED
ISOLATED, FAILED = DiskHealth.ISOLATED, DiskHealth.FAILED
FAST, STUCK, BAD = Sample(latency_ms=1), Sample(stuck=True), Sample(failed=True, errors=1)


def slow(ms: float) -> Sample:
    return Sample(latency_ms=ms)


CASES: dict[str, tuple[list[Sample], DiskHealth, DiskHealth | None]] = {
    "nothing is known": ([], OK, None),
    "fast": ([FAST] * 20, OK, OK),
    "slow for a moment": ([FAST] * 19 + [slow(400)], OK, OK),
    "slow": ([slow(30)] * 20, OK, WARNED),
    "very slow": ([slow(130)] * 20, OK, ISOLATED),
    "very slow, not for long yet": ([slow(130)] * 9, OK, OK),
    "very slow for half of the time": ([FAST, slow(260)] * 10, OK, ISOLATED),
    "idle: too little was measured": ([Sample()] * 15 + [slow(500)] * 5, OK, OK),
    "as slow as the bound, warned": ([slow(21)] * 20, WARNED, WARNED),
    "as slow as the bound, not warned": ([slow(21)] * 20, OK, OK),
    "better": ([slow(19)] * 20, WARNED, OK),
    "stuck": ([FAST] * 3 + [STUCK] * 10, OK, ISOLATED),
    "stuck now and then": ([FAST, STUCK] * 10, OK, OK),
    "stuck nine times": ([FAST] * 10 + [STUCK] * 9, OK, OK),
    "one error": ([FAST] * 10 + [Sample(latency_ms=1, errors=1)] + [FAST] * 5, OK, WARNED),
    "many errors": ([Sample(latency_ms=1, errors=2)] * 10, OK, ISOLATED),
    "four reads failed": ([FAST] * 5 + [BAD] * 4, OK, WARNED),
    "five reads failed": ([FAST] * 5 + [BAD] * 5, OK, FAILED),
    "worn": ([Sample(latency_ms=1, worn_percent=93)], OK, WARNED),
    "worn out": ([Sample(latency_ms=1, worn_percent=100)], OK, ISOLATED),
    "says that it fails": ([Sample(latency_ms=1, failing="soon")], OK, ISOLATED),
    "isolated stays so": ([FAST] * 20, ISOLATED, None),
    "failed stays so": ([FAST] * 20, FAILED, None),
}


@pytest.mark.parametrize("case", CASES)
def test_how_a_disk_is_judged(case: str) -> None:
    samples, before, expected = CASES[case]
    told = find(samples, before, LIMITS)
    assert (told.health if told else None) is expected
    if told is not None and told.health is not OK:
        assert told.why


SAMPLES = st.lists(st.sampled_from([FAST, slow(30), slow(300), STUCK, BAD, Sample()]), max_size=20)


@given(SAMPLES)
def test_a_few_bad_looks_isolate_nothing(samples: list[Sample]) -> None:
    told = find(samples, OK, LIMITS) or Finding(OK)
    stuck = sum(s.stuck for s in samples)
    bad = sum(s.failed for s in samples)
    slow_ones = sum(1 for s in samples if (s.latency_ms or 0) >= 125)
    if stuck < 10 and bad < 5 and slow_ones < 4:
        assert told.health in (OK, WARNED)


def disk(
    name: str, role: DiskRole = DiskRole.DATA, health: DiskHealth = OK, **status: object
) -> Disk:
    node = name.split("-")[0]
    facts = DiskFacts(device=f"/dev/{name}", serial=name, size_bytes=1000, holds="")
    made = DiskStatus(node=node, facts=facts, health=health).model_copy(update=status)
    meta = Meta(id=ResourceId(f"disk-{name}"), name=name, created_at=NOW)
    return Disk(meta=meta, spec=DiskSpec(role=role), status=made)


def pool(*names: str) -> Pool:
    meta = Meta(id=ResourceId("pool-p"), name="p", created_at=NOW)
    member = PoolMember(node="n1", disks=names)
    return Pool(meta=meta, spec=PoolSpec(members=(member,)), status=PoolStatus())


def used(pools: list[Pool], disks: list[Disk], missing_s: float = 0) -> tuple[UseSpare, ...]:
    views = {d.meta.name: disk_view(d, missing_s) for d in disks}
    return spares_used(pools, disks, Places({}, views), 600)


SPARE = disk("n1-s", DiskRole.SPARE)
USE = UseSpare("p", "n1", "n1-a", "n1-s")


@pytest.mark.parametrize(
    ("disks", "missing_s", "expected"),
    [
        ([disk("n1-a"), SPARE], 0, ()),
        ([disk("n1-a", health=WARNED), SPARE], 0, ()),
        ([disk("n1-a", health=ISOLATED), SPARE], 0, (USE,)),
        ([disk("n1-a", health=FAILED), SPARE], 0, (USE,)),
        ([disk("n1-a", health=FAILED), disk("n2-s", DiskRole.SPARE)], 0, ()),
        ([disk("n1-a", health=FAILED), disk("n1-s")], 0, ()),
        ([disk("n1-a", health=DiskHealth.MISSING), SPARE], 5, ()),
        ([disk("n1-a", health=DiskHealth.MISSING), SPARE], 601, (USE,)),
        ([disk("n1-a", health=FAILED, replaced_by="n1-s"), disk("n1-s")], 0, (USE,)),
    ],
)
def test_which_spares_are_used(
    disks: list[Disk], missing_s: float, expected: tuple[UseSpare, ...]
) -> None:
    assert used([pool("n1-a")], disks, missing_s) == expected


def test_one_spare_for_one_disk() -> None:
    bad = [disk("n1-a", health=FAILED), disk("n1-b", health=FAILED)]
    assert len(used([pool("n1-a", "n1-b")], [*bad, SPARE])) == 1
    given_already = [disk("n1-a", health=FAILED, replaced_by="n1-s"), disk("n1-s")]
    assert used([pool("n1-a", "n1-s")], given_already) == ()


def test_what_is_missing_comes_back_but_not_what_was_isolated() -> None:
    gone = missing(disk("n1-a"), NOW)
    assert gone.status.health is DiskHealth.MISSING
    assert found(gone, NOW).status.health is OK
    isolated = judged(disk("n1-a"), ISOLATED, "slow", NOW)
    assert found(missing(isolated, NOW), NOW).status.health is ISOLATED


@pytest.mark.parametrize(
    ("text", "worn", "fails"),
    [
        ("{}", 0, False),
        ('{"smart_status": {"passed": false}}', 0, True),
        ('{"nvme_smart_health_information_log": {"percentage_used": 97}}', 97, False),
        (
            '{"ata_smart_attributes": {"table": [{"name": "Wear_Leveling_Count", "value": 5}]}}',
            95,
            False,
        ),
    ],
)
def test_what_smart_says(text: str, worn: int, fails: bool) -> None:
    told = smart_words(text)
    assert (told[0], bool(told[1])) == (worn, fails)


@pytest.mark.parametrize(
    ("health", "answers", "of_use"),
    [
        (DiskHealth.OK, True, True),
        (DiskHealth.WARNED, True, True),
        (DiskHealth.ISOLATED, True, True),
        (DiskHealth.OK, False, False),
        (DiskHealth.MISSING, True, False),
        (DiskHealth.FAILED, True, False),
    ],
)
def test_what_lies_on_a_disk_that_is_away_is_not_waited_for(
    health: DiskHealth, answers: bool, of_use: bool
) -> None:
    meta = Meta(id=ResourceId("disk-1"), name="n1-d1", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    disk = Disk(meta=meta, spec=DiskSpec(), status=DiskStatus(health=health, answers=answers))
    assert is_of_use(disk) is of_use
    assert is_of_use(None)
