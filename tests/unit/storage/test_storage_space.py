"""Space and places: what may be promised, and where replicas go."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.contracts.errors import Code
from trivet.contracts.model import GIB, ResourceId
from trivet.contracts.resource import Meta
from trivet.contracts.storage.codes import NO_SPACE, TOO_FEW_NODES
from trivet.contracts.storage.pool import Pool, PoolMember, PoolSpec, PoolStatus, PoolUsage
from trivet.storage.domain import pools
from trivet.storage.domain.placement import Placement, Unplaceable, Wanted, place
from trivet.storage.domain.space import Ledger, Member, SpaceClaim

V = ResourceId("volume-1")


def member(
    node: str = "n1", used: int = 0, claimed: int = 0, thick: int = 0, overcommit: float = 2.0
) -> Member:
    ledger = Ledger()
    if claimed:
        claim = SpaceClaim(key="k", size_bytes=claimed * GIB)
        ledger = ledger.with_claim(ResourceId("volume-thin"), claim)
    if thick:
        claim = SpaceClaim(key="k", size_bytes=thick * GIB, thin=False)
        ledger = ledger.with_claim(ResourceId("volume-thick"), claim)
    usage = PoolUsage(node=node, size_bytes=100 * GIB, used_bytes=used * GIB)
    return Member(usage, ledger, overcommit)


def claim(gib: int, thin: bool = True) -> SpaceClaim:
    return SpaceClaim(key="volume.p.v", size_bytes=gib * GIB, thin=thin)


@pytest.mark.parametrize(
    ("there", "asked", "fits"),
    [
        (member(), claim(200), True),
        (member(), claim(201), False),
        (member(claimed=150), claim(51), False),
        (member(used=96), claim(1), False),
        (member(), claim(100, thin=False), True),
        (member(thick=60, used=60), claim(41, thin=False), False),
        (member(used=60), claim(41, thin=False), False),
    ],
)
def test_what_may_be_promised(there: Member, asked: SpaceClaim, fits: bool) -> None:
    assert (there.refusal(V, asked) is None) is fits


def test_what_it_has_already_is_not_asked_for_twice() -> None:
    full = member(claimed=200)
    had = ResourceId("volume-thin")
    assert full.refusal(had, claim(200)) is None
    assert full.refusal(had, claim(201)) is not None


SIZES = st.lists(st.tuples(st.integers(1, 80), st.booleans()), max_size=12)


@given(SIZES, st.floats(1.0, 4.0))
def test_promises_never_pass_the_bounds(asked: list[tuple[int, bool]], overcommit: float) -> None:
    now = member(overcommit=overcommit)
    for n, (gib, thin) in enumerate(asked):
        id_ = ResourceId(f"volume-{n}")
        if now.refusal(id_, claim(gib, thin)) is None:
            now = Member(now.usage, now.ledger.with_claim(id_, claim(gib, thin)), overcommit)
    assert now.ledger.claimed_bytes <= int(now.usage.size_bytes * overcommit)
    assert now.ledger.thick_bytes <= now.usage.size_bytes


def wanted(replicas: int = 1, gib: int = 10, **more: object) -> Wanted:
    return Wanted(volume=V, replicas=replicas, claim=claim(gib), **more)  # type: ignore[arg-type]


def nodes(found: Placement | Unplaceable) -> tuple[str, ...]:
    assert isinstance(found, Placement), found
    return found.nodes


def test_the_order_of_places() -> None:
    a, b, c = member("n1", claimed=30), member("n2", claimed=20), member("n3", claimed=20)
    assert nodes(place(wanted(), (a, b, c))) == ("n2",)
    assert nodes(place(wanted(3), (a, b, c))) == ("n2", "n3", "n1")
    assert nodes(place(wanted(nodes=("n3", "n1")), (a, b, c))) == ("n3",)
    assert nodes(place(wanted(source_nodes=frozenset({"n1"})), (a, b, c))) == ("n1",)
    kept = Member(a.usage, a.ledger.with_claim(V, claim(10)), 2.0)
    assert nodes(place(wanted(nodes=("n3",)), (kept, b, c))) == ("n1",)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (wanted(3), TOO_FEW_NODES),
        (wanted(gib=300), NO_SPACE),
        (wanted(2, source_nodes=frozenset({"n1"})), NO_SPACE),
    ],
)
def test_no_place_says_why(asked: Wanted, code: Code) -> None:
    found = place(asked, (member("n1"), member("n2")))
    assert isinstance(found, Unplaceable)
    assert found.code is code
    assert found.reason


@given(st.integers(1, 3), st.lists(st.integers(0, 220), min_size=1, max_size=6))
def test_replicas_never_share_a_node_and_always_fit(replicas: int, claimed: list[int]) -> None:
    members = [member(f"n{n}", claimed=gib) for n, gib in enumerate(claimed)]
    found = place(wanted(replicas), members)
    fitting = {m.node for m in members if m.refusal(V, claim(10)) is None}
    if isinstance(found, Placement):
        assert len(set(found.nodes)) == replicas
        assert set(found.nodes) <= fitting
    else:
        assert len(fitting) < replicas


def usage(used: float, size: int = 100 * GIB, node: str = "n1") -> PoolUsage:
    return PoolUsage(node=node, size_bytes=size, used_bytes=int(size * used))


@pytest.mark.parametrize(
    ("shares", "reason"),
    [
        ((), "Enough"),
        ((0.5,), "Enough"),
        ((0.8,), "Filling"),
        ((0.1, 0.85), "Filling"),
        ((0.9,), "NearlyFull"),
        ((0.985,), "NearlyFull"),
        ((0.995,), "PoolFull"),
        ((1.0, 0.2), "PoolFull"),
    ],
)
def test_how_much_room_a_pool_says_it_has(shares: tuple[float, ...], reason: str) -> None:
    usages = [usage(share, node=f"n{n}") for n, share in enumerate(shares)]
    told = pools.space_condition(usages)
    assert told.reason == reason
    assert (told.status == "true") == (reason == "Enough")
    assert (pools.REMEDY in told.message) == (reason != "Enough")


@pytest.mark.parametrize("size", [GIB, 10 * GIB, 10_000 * GIB])
def test_full_is_where_writing_would_soon_end(size: int) -> None:
    assert pools.is_full(usage(1.0, size))
    assert not pools.is_full(usage(0.97, size))
    assert pools.starved("p", usage(1.0, size)).startswith("pool p is full on n1: ")
    assert pools.starved("p", usage(0.5, size)) == ""


def test_more_promised_than_there_is_is_told() -> None:
    assert pools.promised_condition([usage(0)], 100 * GIB).reason == "WithinSize"
    assert pools.promised_condition([usage(0)], 101 * GIB).reason == "Overcommitted"
    assert pools.promised_condition([], 101 * GIB).reason == "WithinSize"


def test_usage_is_told_when_it_moved_or_means_something_else() -> None:
    meta = Meta(id=ResourceId("pool-1"), name="p", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    spec = PoolSpec(members=(PoolMember(node="n1"),))
    pool = Pool(meta=meta, spec=spec, status=PoolStatus(usage=(usage(0.795),), engine="e"))
    assert pools.with_usage(pool, usage(0.796), "e") is pool
    assert pools.with_usage(pool, usage(0.801), "e").status.usage == (usage(0.801),)
    assert pools.with_usage(pool, usage(0.6), "e").status.usage == (usage(0.6),)
