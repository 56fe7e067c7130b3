"""Addresses, MACs and VNIs: tables and properties."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.network.domain import vni
from trivet.network.domain.addresses import (
    candidates,
    gateway_of,
    gateways_of,
    normal,
    overlapping,
    usable,
)
from trivet.network.domain.mac import mac_of

MAC = "02:00:00:00:00:0a"

v4_subnets = st.builds(
    lambda number, length: str(ip_network((number >> (32 - length) << (32 - length), length))),
    st.integers(0x0A000000, 0x0AFFFFFF),
    st.integers(16, 29),
)


@pytest.mark.parametrize(
    ("subnet", "taken", "expected"),
    [
        ("10.9.0.0/29", (), ["10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.5", "10.9.0.6"]),
        ("10.9.0.0/29", ("10.9.0.2", "10.9.0.4"), ["10.9.0.3", "10.9.0.5", "10.9.0.6"]),
        ("fd00::/125", (), [f"fd00::{n}" for n in range(2, 8)]),
    ],
)
def test_candidates_are_offered_in_order(
    subnet: str, taken: tuple[str, ...], expected: list[str]
) -> None:
    assert list(candidates(subnet, taken, MAC)) == expected


def test_ipv6_begins_with_what_follows_from_the_mac() -> None:
    offered = list(islice(candidates("fd00:9::/64", (), MAC), 2))
    assert offered == ["fd00:9::ff:fe00:a", "fd00:9::2"]
    assert next(candidates("fd00:9::/64", ("fd00:9::ff:fe00:a",), MAC)) == "fd00:9::2"


@given(v4_subnets, st.integers(0, 40))
def test_what_is_offered_may_be_used_and_comes_once(subnet: str, count: int) -> None:
    offered = list(islice(candidates(subnet, (), MAC), count))
    assert len(set(offered)) == len(offered)
    assert all(usable(subnet, address) for address in offered)
    assert gateway_of(subnet) not in offered


@given(v4_subnets, st.sets(st.integers(0, 300)))
def test_no_address_is_overlooked(subnet: str, picks: set[int]) -> None:
    """Free and taken together are all usable addresses (small subnets)."""
    net = ip_network(subnet)
    if net.num_addresses > 256:
        return
    every = [str(a) for a in net if usable(subnet, str(a))]
    taken = {every[n % len(every)] for n in picks}
    assert set(candidates(subnet, taken, MAC)) == set(every) - taken


@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_interleaved_claims_never_share_an_address(turns: list[bool]) -> None:
    """Two that see stale lists, stepping in any order; the claim (a set) decides."""
    claimed: dict[str, int] = {}
    offers = [candidates("10.9.0.0/26", (), MAC), candidates("10.9.0.0/26", (), MAC)]
    for turn in turns:
        address = next(offers[turn], None)
        if address is not None and address not in claimed:
            claimed[address] = turn
    assert all(usable("10.9.0.0/26", a) for a in claimed)


@pytest.mark.parametrize(
    ("mine", "theirs", "clash"),
    [
        (("10.0.0.0/24",), ("10.0.1.0/24",), None),
        (("10.0.0.0/24",), ("10.0.0.0/16",), ("10.0.0.0/24", "10.0.0.0/16")),
        (("10.0.0.0/16",), ("10.0.7.0/24",), ("10.0.0.0/16", "10.0.7.0/24")),
        (("10.0.0.0/24", "fd00::/64"), ("fd00::/48",), ("fd00::/64", "fd00::/48")),
        (("10.0.0.0/24",), ("fd00::/64",), None),
        (("10.0.0.0/24",), (), None),
    ],
)
def test_overlap(
    mine: tuple[str, ...], theirs: tuple[str, ...], clash: tuple[str, str] | None
) -> None:
    assert overlapping(mine, theirs) == clash


@pytest.mark.parametrize(
    ("address", "expected"),
    [("10.9.0.2", "10.9.0.2"), ("FD00::0:5", "fd00::5"), ("10.9.0", None), ("x", None)],
)
def test_an_address_has_one_spelling(address: str, expected: str | None) -> None:
    assert normal(address) == expected


def test_gateways_are_the_first_usable() -> None:
    assert gateways_of(("10.9.0.0/24", "fd00:9::/64")) == ("10.9.0.1/24", "fd00:9::1/64")


@given(st.text(max_size=40), st.integers(0, 9))
def test_macs_are_local_unicast_and_steady(seed: str, attempt: int) -> None:
    mac = mac_of(seed, attempt)
    first = int(mac[:2], 16)
    assert first & 1 == 0
    assert first & 2 == 2
    assert mac == mac_of(seed, attempt)
    assert len(mac) == 17


@given(st.text(max_size=40))
def test_vnis_are_in_range_and_differ(seed: str) -> None:
    offered = list(vni.candidates(seed, 64))
    assert len(set(offered)) == 64
    assert all(vni.FIRST <= n <= vni.LAST for n in offered)
    assert offered == list(vni.candidates(seed, 64))


def test_candidates_are_real_addresses() -> None:
    assert all(
        ip_address(a) in ip_network("10.9.0.0/28") for a in candidates("10.9.0.0/28", (), MAC)
    )
