"""The pure parts of the nftables firewall: numbers that stay, and rules in few lines."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trivet.contracts.errors import Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.security.firewall import Binding, GroupRules, Ruleset
from trivet.contracts.security.group import Action, Direction, Protocol, Rule
from trivet.plugins.security.nftables_groups import merge_ports, policies, render_policy
from trivet.plugins.security.nftables_render import Mode, link_local, render
from trivet.plugins.security.nftables_slots import MAX_SLOT, Slots, assign_slots


def _port(number: int, vni: int = 1, groups: tuple[str, ...] = ()) -> Binding:
    return Binding(
        port=ResourceId(f"port-{number}"),
        project="acme",
        generation=1,
        device=f"tvp{number}",
        mac=f"52:54:00:00:00:{number:02x}",
        addresses=(f"10.0.0.{number}",),
        vni=vni,
        security_groups=groups,
    )


def _group(name: str) -> GroupRules:
    id_ = ResourceId(f"security-group-{name}")
    return GroupRules(id=id_, project="acme", name=name, generation=1, rules=())


_numbers = st.sets(st.integers(1, 200), max_size=20)


@given(st.lists(_numbers, max_size=6))
def test_slots_stay_and_are_never_shared(steps: list[set[int]]) -> None:
    slots = Slots()
    for numbers in steps:
        ruleset = Ruleset(ports=tuple(_port(n, vni=n % 7) for n in sorted(numbers)))
        after = assign_slots(ruleset, slots)
        assert len(set(after.ports.values())) == len(numbers)
        assert len(set(after.zones.values())) == len(after.zones)
        assert all(1 <= slot <= MAX_SLOT for slot in after.ports.values())
        kept = slots.ports.keys() & after.ports.keys()
        assert all(after.ports[port] == slots.ports[port] for port in kept)
        freed = {slots.ports[port] for port in slots.ports.keys() - after.ports.keys()}
        new = {after.ports[port] for port in after.ports.keys() - slots.ports.keys()}
        assert not freed & new
        slots = after


def test_slots_go_round_at_the_end() -> None:
    previous = Slots(ports={ResourceId("port-1"): MAX_SLOT, ResourceId("port-2"): 1})
    ruleset = Ruleset(ports=(_port(1), _port(2), _port(3)))
    assert assign_slots(ruleset, previous).ports[ResourceId("port-3")] == 2


@pytest.mark.parametrize(
    ("rules", "lines"),
    [
        ((), ["drop"]),
        ((Rule(),), ["return", "drop"]),
        ((Rule(direction=Direction.OUT),), ["drop"]),
        (
            (
                Rule(protocol=Protocol.TCP, ports=("80",)),
                Rule(protocol=Protocol.TCP, ports=("81-90", "22")),
            ),
            ["tcp dport { 22, 80-90 } return", "drop"],
        ),
        (
            (Rule(remote="10.0.0.0/24"), Rule(remote="10.0.1.0/24"), Rule(remote="fd00::/8")),
            ["ip saddr { 10.0.0.0/23 } return", "ip6 saddr { fd00::/8 } return", "drop"],
        ),
        ((Rule(remote="10.0.0.0/24"), Rule()), ["return", "drop"]),
        (
            (Rule(protocol=Protocol.UDP), Rule(protocol=Protocol.UDP, action=Action.DENY)),
            ["meta l4proto udp drop", "meta l4proto udp return", "drop"],
        ),
        (
            (
                Rule(protocol=Protocol.UDP, priority=5),
                Rule(protocol=Protocol.UDP, action=Action.DENY),
            ),
            ["meta l4proto udp return", "meta l4proto udp drop", "drop"],
        ),
    ],
)
def test_rules_become_few_lines(rules: tuple[Rule, ...], lines: list[str]) -> None:
    assert render_policy(rules, Direction.IN) == lines


def test_ten_thousand_addresses_are_one_line() -> None:
    rules = [Rule(remote=f"10.{n // 100}.{n % 100 * 2}.0/24") for n in range(10000)]
    assert len(render_policy(rules, Direction.IN)) == 2


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(0, 9)), min_size=1))
def test_merged_ports_are_the_same_ports(spans: list[tuple[int, int]]) -> None:
    texts = [f"{first}-{first + more}" for first, more in spans]
    wanted = {port for first, more in spans for port in range(first, first + more + 1)}
    merged = [(int(t.split("-")[0]), int(t.split("-")[-1])) for t in merge_ports(texts)]
    assert {port for first, last in merged for port in range(first, last + 1)} == wanted
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(merged))


def test_ports_behind_the_same_groups_share_their_chains() -> None:
    ruleset = Ruleset(
        ports=(_port(1, groups=("a", "b")), _port(2, groups=("b", "a")), _port(3, groups=("a",))),
        groups=(_group("a"), _group("b")),
    )
    of_port, rules = policies(ruleset)
    assert of_port[ResourceId("port-1")] == of_port[ResourceId("port-2")]
    assert len(rules) == 2


def test_an_unknown_group_is_refused() -> None:
    with pytest.raises(Refused, match="lacks"):
        policies(Ruleset(ports=(_port(1, groups=("a",)),)))


def test_the_link_local_address_of_a_mac() -> None:
    assert str(link_local("52:54:00:12:34:56")) == "fe80::5054:ff:fe12:3456"


@pytest.mark.parametrize("mode", list(Mode))
def test_the_text_is_the_same_each_time(mode: Mode) -> None:
    ruleset = Ruleset(ports=(_port(1, groups=("a",)), _port(2)), groups=(_group("a"),))
    slots = assign_slots(ruleset, Slots())
    text = render(ruleset, slots, mode, "tv")
    assert text == render(ruleset, assign_slots(ruleset, slots), mode, "tv")
    assert text.startswith("table bridge tv_firewall\ndelete table bridge tv_firewall\n")
