"""What may be claimed, and what a ledger is mended to."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.contracts.errors import Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.security.codes import QUOTA
from trivet.contracts.security.quota import Ledger, QuotaClaim, Quotas
from trivet.security.domain.quotas import GRACE, claimed, mended, stored, usage, without

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUOTAS = Quotas(vms=2, vcpus=8)


def claim(ledger: Ledger, name: str, quotas: Quotas = QUOTAS, **amounts: int) -> Ledger:
    return claimed(ledger, quotas, "p", ResourceId(name), of(1, **amounts))


def of(generation: int, **amounts: int) -> QuotaClaim:
    return QuotaClaim(amounts=amounts, at=NOW, generation=generation)


def test_claims_add_up_and_the_last_straw_is_refused() -> None:
    ledger = claim(claim(Ledger(), "a", vms=1, vcpus=4), "b", vms=1, vcpus=4)
    assert usage(ledger) == {"vcpus": 8, "vms": 2}
    with pytest.raises(Refused) as caught:
        claim(ledger, "c", vms=1, vcpus=1)
    assert caught.value.code is QUOTA
    assert [(e.where, e.message) for e in caught.value.errors] == [
        ("vcpus", "limit 8, used 8, asked 1"),
        ("vms", "limit 2, used 2, asked 1"),
    ]


def test_a_claim_is_added_to_and_is_less_once_less_is_stored() -> None:
    vm = ResourceId("a")
    ledger = claim(Ledger(), "a", vms=1, vcpus=4)
    assert usage(claim(ledger, "a", vms=1, vcpus=8)) == {"vcpus": 8, "vms": 1}
    assert usage(claim(ledger, "a", vms=1, vcpus=2)) == {"vcpus": 4, "vms": 1}
    assert usage(stored(ledger, vm, of(1, vms=1, vcpus=2))) == {"vcpus": 2, "vms": 1}
    assert without(ledger, vm) == Ledger()
    assert stored(Ledger(), vm, of(1, vms=1)) == Ledger()
    assert usage(claim(ledger, "b", volumes=7)) == {"vcpus": 4, "vms": 1, "volumes": 7}


def test_who_is_over_a_lowered_limit_may_take_less() -> None:
    ledger = claim(Ledger(), "a", Quotas(), vms=1, vcpus=16)
    assert usage(claim(ledger, "a", vms=1, vcpus=12))["vcpus"] == 16
    with pytest.raises(Refused):
        claim(ledger, "a", vms=1, vcpus=17)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.data())
def test_whoever_changes_a_vm_at_once_it_never_takes_more_than_is_claimed(
    wanted: list[int], data: st.DataObject
) -> None:
    vm = ResourceId("a")
    ledger, has, generation = claim(Ledger(), "a", Quotas(), vcpus=4), 4, 1

    def edit(vcpus: int) -> Iterator[None]:
        """As `runtime.crud` does it; a conflict ends it, as for who named a revision."""
        nonlocal ledger, has, generation
        read, had = generation, has
        yield
        if vcpus > had:
            ledger = claimed(ledger, Quotas(), "p", vm, of(read + 1, vcpus=vcpus))
            yield
        if generation != read:
            return
        has, generation = vcpus, read + 1
        yield
        if vcpus < had:
            ledger = stored(ledger, vm, of(read + 1, vcpus=vcpus))

    at_work = [edit(vcpus) for vcpus in wanted]
    while at_work:
        one = data.draw(st.sampled_from(at_work))
        if next(one, "done") == "done":
            at_work.remove(one)
        assert usage(ledger)["vcpus"] >= has
    if len(wanted) == 1:
        assert usage(ledger)["vcpus"] == has


_ids = st.sampled_from(["a", "b", "c", "d"])
_held = st.dictionaries(_ids.map(ResourceId), st.integers(1, 9).map(lambda n: {"vcpus": n}))


@given(_held, _held)
def test_a_mended_ledger_is_what_there_is_once_claims_are_old(
    claims: dict[ResourceId, dict[str, int]], there: dict[ResourceId, dict[str, int]]
) -> None:
    ledger = Ledger()
    for name, amounts in claims.items():
        ledger = claim(ledger, name, Quotas(), **amounts)
    young = mended(ledger, there, NOW + GRACE - timedelta(seconds=1))
    assert all(young.claims[k] == v for k, v in ledger.claims.items())
    old = mended(ledger, there, NOW + GRACE)
    assert mended(ledger, there, NOW - timedelta(hours=1)).claims.keys() == old.claims.keys()
    assert {k: v.amounts for k, v in old.claims.items()} == there
    assert mended(old, there, NOW + GRACE * 3).claims.keys() == there.keys()
