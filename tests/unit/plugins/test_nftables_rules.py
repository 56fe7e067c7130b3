"""The pure parts of the nftables firewall: numbers that stay, rules in few lines, differences."""

from __future__ import annotations

import itertools
from collections import Counter
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivet.contracts.errors import Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.security.firewall import AddressList, Binding, GroupRules, Ruleset
from trivet.contracts.security.group import Action, Direction, Protocol, Rule
from trivet.plugins.security.nftables_memory import PolicyMemory, changes, policies
from trivet.plugins.security.nftables_netlink import NotSimple, batch
from trivet.plugins.security.nftables_networks import ListSets, Networks, Prefix
from trivet.plugins.security.nftables_parts import Mode
from trivet.plugins.security.nftables_policy import ONE_BY_ONE_MAX, policy_name
from trivet.plugins.security.nftables_render import Rendered, render
from trivet.plugins.security.nftables_slots import MAX_SLOT, Slots, assign_slots
from trivet.plugins.security.nftables_text import Chain, Elements, Table, difference, replacement
from trivet.plugins.security.nftables_words import merge_ports, merge_spans, without


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


def _group(name: str, *rules: Rule) -> GroupRules:
    id_ = ResourceId(f"security-group-{name}")
    return GroupRules(id=id_, project="acme", name=name, generation=1, rules=rules)


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


def _lines(*rules: Rule) -> list[str]:
    group = _group("web", *rules)
    into, _ = PolicyMemory().policies({(group.id,): (group,)}, ())
    found = into.chains[policy_name((group.id,), Direction.IN)]
    words = (line.split() for line in found)
    return [" ".join(w for w in some if not w.startswith("hit_")) for some in words]


@pytest.mark.parametrize(
    ("rules", "lines"),
    [
        ((), ["drop"]),
        ((Rule(),), ["counter name return", "drop"]),
        ((Rule(direction=Direction.OUT),), ["drop"]),
        (
            (Rule(protocol=Protocol.TCP, ports=("81-90", "80")),),
            ["tcp dport 80-90 counter name return", "drop"],
        ),
        (
            (Rule(remote="10.0.0.0/24"), Rule(remote="fd00::/8")),
            ["ip saddr 10.0.0.0/24 counter name return", "ip6 saddr fd00::/8 counter name return",
             "drop"],
        ),
        (
            (Rule(protocol=Protocol.UDP), Rule(protocol=Protocol.UDP, action=Action.DENY)),
            ["meta l4proto udp counter name drop", "meta l4proto udp counter name return", "drop"],
        ),
        (
            (
                Rule(protocol=Protocol.UDP, priority=5),
                Rule(protocol=Protocol.UDP, action=Action.DENY),
            ),
            ["meta l4proto udp counter name return", "meta l4proto udp counter name drop", "drop"],
        ),
    ],
)  # fmt: skip
def test_few_rules_are_one_line_each(rules: tuple[Rule, ...], lines: list[str]) -> None:
    assert _lines(*rules) == lines


def test_ten_thousand_rules_are_few_lines() -> None:
    rules = [Rule(remote=f"10.{n // 100}.{n % 100 * 2}.0/24") for n in range(6000)]
    tcp = Protocol.TCP
    rules += [Rule(protocol=tcp, ports=(str(n + 1),), remote="11.0.0.1") for n in range(2000)]
    rules += [Rule(protocol=tcp, ports=(f"{n * 2 + 1}",)) for n in range(2000)]
    assert len(_lines(*rules)) == 4


def test_many_rules_of_two_actions_keep_their_order() -> None:
    deny = [
        Rule(remote=f"10.0.0.{n}", action=Action.DENY, priority=1) for n in range(ONE_BY_ONE_MAX)
    ]
    lines = _lines(Rule(remote="10.0.0.0/8"), *deny)
    assert [line.split()[-1] for line in lines] == ["drop", "return", "drop"]


_spans = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), max_size=5)


_places = st.tuples(st.integers(0, 15), st.sampled_from([28, 29, 30, 31, 32]))


@given(st.lists(st.tuples(_places, _spans.filter(bool), st.booleans()), max_size=16))
def test_pairs_are_apart_and_say_the_same(
    steps: list[tuple[tuple[int, int], list[tuple[int, int]], bool]],
) -> None:
    """Whatever came and went before, in whatever order."""
    networks, there = Networks(4), list[tuple[Prefix, list[tuple[int, int]]]]()
    for (number, length), drawn, goes in steps:
        where = (length, number >> (32 - length) << (32 - length))
        if goes and there:
            networks.remove(*there.pop(number % len(there)))
        else:
            spans = [(a, a + more) for a, more in drawn]
            networks.add(where, spans)
            there.append((where, spans))
        networks.sets()
    found = [
        (ip_network(where), tuple(map(int, f"{ports}-{ports}".split("-")))[:2])
        for made in networks.sets().values()
        for where, ports in (element.split(" . ") for element in made.elements)
    ]
    for number, port in itertools.product(range(16), range(0, 37, 3)):
        wanted = any(
            number >> (32 - length) << (32 - length) == first
            and any(a <= port <= b for a, b in spans)
            for (length, first), spans in there
        )
        address = ip_address(number)
        holding = [1 for where, (a, b) in found if address in where and a <= port <= b]
        assert sum(holding) == wanted


def test_the_elements_of_a_list_do_not_overlap() -> None:
    texts = ("10.0.0.0/8", "10.1.0.0/16", "10.0.0.1", "11.0.0.1/32", "fd00::/8", "fd00::1")
    sets = ListSets()
    made = sets.of(texts)
    assert {version: set(found.elements) for version, found in made.items()} == {
        4: {"10.0.0.0/8", "11.0.0.1"},
        6: {"fd00::/8"},
    }
    assert sets.of(texts[1:])[4].elements.keys() == {"10.1.0.0/16", "10.0.0.1", "11.0.0.1"}


@given(_spans, _spans)
def test_spans_without_others(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> None:
    def of(spans: list[tuple[int, int]]) -> set[int]:
        return {n for a, b in spans for n in range(a, b + 1)}

    first, second = (merge_spans((a, a + more) for a, more in s) for s in (some, others))
    assert of(without(first, second)) == of(first) - of(second)


@given(st.lists(st.tuples(st.integers(1, 99), st.integers(0, 9)), min_size=1))
def test_merged_ports_are_the_same_ports(spans: list[tuple[int, int]]) -> None:
    texts = tuple(f"{first}-{first + more}" for first, more in spans)
    wanted = {port for first, more in spans for port in range(first, first + more + 1)}
    merged = [(int(t.split("-")[0]), int(t.split("-")[-1])) for t in merge_ports(texts)]
    assert {port for first, last in merged for port in range(first, last + 1)} == wanted
    assert all(a[1] + 1 < b[0] for a, b in itertools.pairwise(merged))


def test_ports_behind_the_same_groups_share_their_chains() -> None:
    ruleset = Ruleset(
        ports=(_port(1, groups=("a", "b")), _port(2, groups=("b", "a")), _port(3, groups=("a",))),
        groups=(_group("a"), _group("b")),
    )
    of_port, groups = policies(ruleset)
    assert of_port[ResourceId("port-1")] == of_port[ResourceId("port-2")]
    assert len(groups) == 2


def test_an_unknown_group_or_list_is_refused() -> None:
    with pytest.raises(Refused, match="lacks"):
        policies(Ruleset(ports=(_port(1, groups=("a",)),)))
    naming = _group("a", Rule(remote="set:bad"))
    with pytest.raises(Refused, match="lacks"):
        _rendered(Ruleset(ports=(_port(1, groups=("a",)),), groups=(naming,)))


def _rendered(
    ruleset: Ruleset, mode: Mode = Mode.NATIVE, memory: PolicyMemory | None = None
) -> Rendered:
    return render(ruleset, assign_slots(ruleset, Slots()), mode, "tv", memory)


def _tables(ruleset: Ruleset, mode: Mode) -> dict[str, Table]:
    return dict(_rendered(ruleset, mode).tables)


_rules = st.builds(
    Rule,
    direction=st.sampled_from(Direction),
    protocol=st.sampled_from([Protocol.TCP, Protocol.UDP]),
    ports=st.sampled_from([(), ("80",), ("80-90", "443")]),
    remote=st.sampled_from([None, "10.0.0.0/8", "10.0.0.0/9", "10.0.0.1", "fd00::/8", "set:bad"]),
    action=st.sampled_from(Action),
    priority=st.sampled_from([1, 2, 3]),
    log=st.booleans(),
)


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.lists(_rules, max_size=9).map(tuple),
            st.lists(_rules, max_size=3).map(tuple),
            st.integers(0, 2),
        ),
        max_size=6,
    )
)
def test_what_is_remembered_changes_nothing(
    steps: list[tuple[tuple[Rule, ...], tuple[Rule, ...], int]],
) -> None:
    """After any changes of rules, over the bound of one by one and back, the tables are those
    that are made from the ground up; a rule that can't be taken in leaves no trace."""
    many = tuple(
        Rule(remote=f"10.{n}.0.0/16", action=Action.DENY, priority=2, direction=Direction.IN)
        for n in range(ONE_BY_ONE_MAX - 1)
    )
    ports = (_port(1, groups=("a",)), _port(2, groups=("a", "b")))
    memory = PolicyMemory()
    for rules, others, kind in steps:
        groups = (_group("a", *rules, *many[:: kind or 50]), _group("b", *others, *rules[:kind]))
        bad = AddressList(project="acme", name="set:bad", addresses=("11.0.0.0/8",) * kind)
        ruleset = Ruleset(ports=ports, groups=groups, lists=(bad,))
        if any(rule.named for group in groups for rule in group.rules):
            with pytest.raises(Refused, match="lacks"):
                _rendered(ruleset.model_copy(update={"lists": ()}), memory=memory)
        assert _rendered(ruleset, memory=memory) == _rendered(ruleset)


@given(st.lists(_rules, max_size=8).map(tuple), st.lists(_rules, max_size=8).map(tuple))
def test_changes_lead_from_one_to_the_other(
    before: tuple[Rule, ...], after: tuple[Rule, ...]
) -> None:
    gone, come = changes(before, after)
    assert Counter(before) - Counter(gone) + Counter(come) == Counter(after)


def test_one_rule_of_many_is_one_change() -> None:
    many = tuple(Rule(remote=f"10.{n}.0.0/16") for n in range(200))
    other = Rule(remote="11.0.0.0/8")
    for after, gone, come in (
        ((*many[:9], other, *many[10:]), (many[9],), (other,)),
        ((*many[:9], *many[10:]), (many[9],), ()),
        ((*many[:9], other, *many[9:]), (), (other,)),
        (tuple(Rule(**dict(rule)) for rule in many), (), ()),
    ):
        assert tuple(map(tuple, changes(many, after))) == (gone, come)


@pytest.mark.parametrize("mode", list(Mode))
def test_the_text_is_the_same_each_time(mode: Mode) -> None:
    ruleset = Ruleset(ports=(_port(1, groups=("a",)), _port(2)), groups=(_group("a"),))
    text = replacement(_tables(ruleset, mode), "tv_firewall")
    assert text == replacement(_tables(ruleset, mode), "tv_firewall")
    assert text.startswith("table bridge tv_firewall\ndelete table bridge tv_firewall\n")


@pytest.mark.parametrize("mode", list(Mode))
def test_a_member_more_is_an_element_more(mode: Mode) -> None:
    rules = _group("a", Rule(remote="group:b"))

    def of(*addresses: str) -> Ruleset:
        members = AddressList(project="acme", name="group:b", addresses=addresses)
        return Ruleset(ports=(_port(1, groups=("a",)),), groups=(rules,), lists=(members,))

    before = _tables(of("10.0.0.1", "10.0.0.9"), mode)
    change = difference(before, _tables(of("10.0.0.1", "10.0.0.5"), mode), "tv")
    assert change is not None
    assert [(s.gone, list(s.new)) for s in change.sets] == [(["10.0.0.9"], ["10.0.0.5"])]
    assert change.chains == ()
    assert len(batch(change, "tv")) == 4
    grown = difference(before, _tables(of("10.0.0.1", "10.0.0.7", "10.0.0.9"), mode), "tv")
    assert grown is not None
    assert {name for _, name, _ in grown.chains} == {"contents"}
    assert len(batch(grown, "tv")) > 4
    nothing = difference(before, before, "tv")
    assert nothing is not None
    assert nothing.text == ""


def test_what_only_nft_can_say() -> None:
    table = Table(
        chains={"c": Chain(("accept",))}, sets={"m": Elements("mark : verdict", kind="map")}
    )
    changes = (
        Table(chains={"c": Chain(("drop",))}, sets=table.sets),
        Table(
            chains=table.chains, sets={"m": Elements("mark : verdict", {"1": "drop"}, kind="map")}
        ),
        Table(chains=table.chains, sets={}),
    )
    for after in changes:
        change = difference({"inet": table}, {"inet": after}, "tv")
        assert change is not None
        with pytest.raises(NotSimple):
            batch(change, "tv")


def test_what_takes_a_replacement() -> None:
    base = Table(chains={"c": Chain((), "type filter hook forward priority 0; policy accept;")})
    assert difference({"inet": base}, {"inet": Table()}, "tv") is None
    assert difference({"inet": base}, {"bridge": base}, "tv") is None
