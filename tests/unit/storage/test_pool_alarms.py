"""The words in which a pool tells of its space are those that the alarms go by."""

from datetime import UTC, datetime

import pytest

from trivet.contracts.model import GIB, ResourceId
from trivet.contracts.resource import Meta, Phase
from trivet.contracts.storage.alarms import RULES
from trivet.contracts.storage.pool import POOL, Pool, PoolMember, PoolSpec, PoolStatus, PoolUsage
from trivet.storage.domain.pools import promised_condition, space_condition

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("used", "alarm"),
    [
        (0.0, None),
        (0.79, None),
        (0.80, "pool-filling"),
        (0.89, "pool-filling"),
        (0.90, "pool-nearly-full"),
        (0.98, "pool-nearly-full"),
        (0.999, "pool-full"),
        (1.0, "pool-full"),
    ],
)
def test_a_pool_that_fills(used: float, alarm: str | None) -> None:
    size = 100 * GIB
    usage = PoolUsage(node="n1", size_bytes=size, used_bytes=int(used * size))
    status = PoolStatus(phase=Phase.READY, usage=(usage,), conditions=(space_condition((usage,)),))
    pool = Pool(
        meta=Meta(id=ResourceId("pool-1"), name="p", created_at=NOW),
        spec=PoolSpec(members=(PoolMember(node="n1"),)),
        status=status,
    )
    raised = [r.name for r in RULES if r.kind is POOL and r.when(pool, NOW) is not None]  # type: ignore[arg-type]
    assert raised == ([alarm] if alarm else [])


@pytest.mark.parametrize(
    ("claimed_gib", "used_gib", "alarms"),
    [(100, 60, []), (101, 49, []), (101, 50, ["pool-overcommitted"])],
)
def test_a_pool_of_which_more_is_promised_than_there_is(
    claimed_gib: int, used_gib: int, alarms: list[str]
) -> None:
    usage = PoolUsage(node="n1", size_bytes=100 * GIB, used_bytes=used_gib * GIB)
    told = promised_condition((usage,), claimed_gib * GIB)
    status = PoolStatus(phase=Phase.READY, usage=(usage,), conditions=(told,))
    pool = Pool(
        meta=Meta(id=ResourceId("pool-1"), name="p", created_at=NOW),
        spec=PoolSpec(members=(PoolMember(node="n1"),)),
        status=status,
    )
    raised = [r.name for r in RULES if r.kind is POOL and r.when(pool, NOW) is not None]  # type: ignore[arg-type]
    assert raised == alarms
