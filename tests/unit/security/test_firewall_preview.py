"""What a change of rules would do, as tables, and against trying everything."""

from __future__ import annotations

import itertools
import random

from trivet.contracts.model import ResourceId
from trivet.contracts.security.evaluate import NamedRule, Opening, decide, in_order
from trivet.contracts.security.group import Action, Direction, Protocol, Rule
from trivet.security.domain.preview import Stand, reach

SSH = Rule(protocol=Protocol.TCP, ports=("22",))
WEB = Rule(protocol=Protocol.TCP, ports=("80-89",), remote="10.0.0.0/24")


def named(*rules: Rule) -> list[NamedRule]:
    return in_order(NamedRule(ResourceId("g"), "p", "web", rule) for rule in rules)


def stand(before: list[NamedRule], after: list[NamedRule]) -> Stand:
    return Stand("a", "lan", ("10.0.0.1",), before, after)


def told(
    before: list[NamedRule], after: list[NamedRule]
) -> list[tuple[str, tuple[tuple[int, int], ...], str]]:
    others = {"lan": [("a", "10.0.0.1"), ("b", "10.0.0.2")]}
    found = reach([stand(before, after)], others, {}, {})
    assert found.complete
    return [(c.remote, c.ports, f"{c.before.action}>{c.after.action}") for c in found.changes]


def test_nothing_changes() -> None:
    assert told(named(SSH, WEB), named(WEB, SSH)) == []


def test_a_rule_that_goes() -> None:
    assert told(named(SSH, WEB), named(SSH)) == [
        ("b", ((80, 89),), "allow>deny"),
        ("10.0.0.0/24", ((80, 89),), "allow>deny"),
    ]
    assert told(named(SSH, WEB), named(WEB)) == [
        ("b", ((22, 22),), "allow>deny"),
        ("10.0.0.0/24", ((22, 22),), "allow>deny"),
        ("anywhere else", ((22, 22),), "allow>deny"),
    ]


def test_a_deny_that_comes_before() -> None:
    deny = Rule(protocol=Protocol.TCP, ports=("85-100",), action=Action.DENY, priority=1)
    assert told(named(WEB), named(WEB, deny)) == [
        ("b", ((85, 89),), "allow>deny"),
        ("10.0.0.0/24", ((85, 89),), "allow>deny"),
    ]


def test_outwards_and_icmp() -> None:
    deny = Rule(direction=Direction.OUT, protocol=Protocol.ICMP, action=Action.DENY)
    assert told(named(), named(deny)) == [
        ("b", (), "allow>deny"),
        ("anywhere else", (), "allow>deny"),
    ]


def test_what_is_told_is_what_trying_everything_finds() -> None:
    chance = random.Random(7)

    def rule() -> Rule:
        first = chance.randint(1, 30)
        return Rule(
            protocol=Protocol.TCP,
            ports=(f"{first}-{first + chance.randint(0, 5)}",),
            remote=chance.choice([None, "10.0.0.2/32", "10.0.0.0/30"]),
            action=chance.choice(list(Action)),
            priority=chance.choice([1, 2]),
        )

    for _ in range(50):
        before, after = (named(*(rule() for _ in range(4))) for _ in range(2))
        found = reach([stand(before, after)], {"lan": [("b", "10.0.0.2")]}, {}, {})
        changed = {
            port for c in found.changes if c.remote == "b" for a, z in c.ports
            for port in range(a, z + 1)
        }  # fmt: skip
        for port, _ in itertools.product(range(1, 40), [0]):
            opening = Opening(Direction.IN, Protocol.TCP, "10.0.0.2", port)
            differs = decide(before, opening, {}).action is not decide(after, opening, {}).action
            assert differs is (port in changed)


def test_more_than_can_be_looked_at_is_said() -> None:
    rules = named(*(Rule(protocol=Protocol.TCP, ports=(str(n * 2 + 1),)) for n in range(400)))
    neighbours = {"lan": [(f"p{n}", f"10.1.{n // 250}.{n % 250}") for n in range(1000)]}
    assert not reach([stand(rules, named())], neighbours, {}, {}).complete
