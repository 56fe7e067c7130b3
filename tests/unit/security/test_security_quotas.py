"""What may be claimed, and what a ledger is mended to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.contracts.errors import Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.security.codes import QUOTA
from trivet.contracts.security.quota import Ledger, Quotas
from trivet.security.domain.quotas import GRACE, claimed, mended, usage

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUOTAS = Quotas(vms=2, vcpus=8)


def claim(ledger: Ledger, name: str, quotas: Quotas = QUOTAS, **amounts: int) -> Ledger:
    return claimed(ledger, quotas, "p", ResourceId(name), amounts, NOW)


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


def test_claiming_again_replaces_and_nothing_gives_back() -> None:
    ledger = claim(Ledger(), "a", vms=1, vcpus=4)
    assert usage(claim(ledger, "a", vms=1, vcpus=8)) == {"vcpus": 8, "vms": 1}
    assert claim(ledger, "a") == Ledger()
    assert usage(claim(ledger, "b", volumes=7)) == {"vcpus": 4, "vms": 1, "volumes": 7}


def test_who_is_over_a_lowered_limit_may_take_less() -> None:
    ledger = claim(Ledger(), "a", Quotas(), vms=1, vcpus=16)
    assert usage(claim(ledger, "a", vms=1, vcpus=12))["vcpus"] == 12
    with pytest.raises(Refused):
        claim(ledger, "a", vms=1, vcpus=17)


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
