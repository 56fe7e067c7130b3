"""More of the conformance suite of firewall backends: lists, hits, logs, and random rules.

A test module subclasses `FirewallRulesSuite` with the fixtures of `FirewallSuite`. The random
rulesets are applied one over the other, so that what changes only a little is tried too; what
must come of each packet says `contracts.security.evaluate`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from trivet.contracts.errors import Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.security.evaluate import NamedRule, Opening, decide, in_order
from trivet.contracts.security.firewall import (
    AddressList,
    FirewallBackend,
    GroupRules,
    LogEntry,
    Ruleset,
    Tracking,
)
from trivet.contracts.security.group import Action, Direction, Rule
from trivet.contracts.security.group import Protocol as Proto
from trivet.testing.packets import Packet, Shape
from trivet.testing.suites.firewall import (
    ALICE,
    BOB,
    GATE,
    V4,
    V6,
    Wire,
    binding,
    group,
    packet,
)

DEADLINE_S = 60.0
FRIENDS = AddressList(project="acme", name="group:friends", addresses=(V4[BOB], V6[BOB]))
BAD = AddressList(project="acme", name="set:bad", addresses=("10.7.0.0/16", "fd00:7::/32"))
GUARDED = group(
    "guarded",
    Rule(protocol=Proto.TCP, ports=("23",), remote="group:friends"),
    Rule(remote="set:bad", action=Action.DENY, priority=10),
    Rule(protocol=Proto.TCP, ports=("24",), log=True),
    Rule(protocol=Proto.TCP, ports=("25",), action=Action.DENY, log=True),
)


def ruleset(guarded: GroupRules, *lists: AddressList) -> Ruleset:
    """Alice is guarded, Bob is behind nothing."""
    return Ruleset(ports=(binding(ALICE, (guarded.name,)), binding(BOB, ())), groups=(guarded,),
                   lists=lists)  # fmt: skip


class Sent:
    """Packets of connections that were never seen before: each has a source port of its own."""

    def __init__(self) -> None:
        self._port = 20000

    def tcp(self, sender: str, port: int, src: str = "") -> Packet:
        """The first packet of a connection to Alice."""
        self._port += 1
        made = packet(sender, ALICE, Shape.TCP, port, v6=":" in src)
        return replace(made, sport=self._port, src=src or made.src)


@pytest.fixture
def sent() -> Sent:
    """Connections of one test."""
    return Sent()


class FirewallRulesSuite:
    """What rules mean, beyond single packets."""

    async def test_a_group_as_remote_follows_its_ports(
        self, driver: FirewallBackend, wire: Wire, sent: Sent
    ) -> None:
        """Ports that come into the group pass, those that leave it pass no more."""
        for _ in range(2):
            await driver.apply(ruleset(GUARDED, FRIENDS, BAD))
            assert await wire.passes(sent.tcp(BOB, 23), expected=True)
            assert await wire.passes(sent.tcp(BOB, 23, V6[BOB]), expected=True)
            assert not await wire.passes(sent.tcp(GATE, 23), expected=False)
            nobody = FRIENDS.model_copy(update={"addresses": ("10.0.0.99",)})
            await driver.apply(ruleset(GUARDED, nobody, BAD))
            assert not await wire.passes(sent.tcp(BOB, 23), expected=False)
            assert not await wire.passes(sent.tcp(BOB, 23, V6[BOB]), expected=False)

    async def test_an_address_set_denies_first(
        self, driver: FirewallBackend, wire: Wire, sent: Sent
    ) -> None:
        """A deny of a set beats a later allow, for its addresses alone."""
        await driver.apply(ruleset(GUARDED, FRIENDS, BAD))
        assert await wire.passes(sent.tcp(GATE, 24, "10.8.0.1"), expected=True)
        assert not await wire.passes(sent.tcp(GATE, 24, "10.7.3.1"), expected=False)
        assert not await wire.passes(sent.tcp(GATE, 24, "fd00:7::1"), expected=False)
        less = BAD.model_copy(update={"addresses": ("fd00:7::/32",)})
        await driver.apply(ruleset(GUARDED, FRIENDS, less))
        assert await wire.passes(sent.tcp(GATE, 24, "10.7.3.1"), expected=True)
        assert not await wire.passes(sent.tcp(GATE, 24, "fd00:7::1"), expected=False)

    async def test_a_list_that_is_not_there_is_refused(self, driver: FirewallBackend) -> None:
        """A rule is never in force without knowing whom it names."""
        with pytest.raises(Refused):
            await driver.apply(ruleset(GUARDED, FRIENDS))

    async def test_hits_are_counted_by_rule_and_survive_other_changes(
        self, driver: FirewallBackend, wire: Wire, sent: Sent
    ) -> None:
        """Who decided is known; another rule that comes leaves the count as it was."""
        await driver.apply(ruleset(GUARDED, FRIENDS, BAD))
        for _ in range(3):
            await wire.passes(sent.tcp(BOB, 24), expected=True)
        await wire.passes(sent.tcp(BOB, 25), expected=False)
        await wire.passes(sent.tcp(GATE, 23, "10.7.0.1"), expected=False)
        counted = [0, 1, 3, 1]
        assert await _hits(driver, GUARDED) == counted
        more = group("guarded", *GUARDED.rules, Rule(protocol=Proto.UDP), generation=2)
        await driver.apply(ruleset(more, FRIENDS, BAD))
        assert await _hits(driver, more) == [*counted, 0]

    async def test_log_tells_what_was_decided(
        self, driver: FirewallBackend, wire: Wire, sent: Sent
    ) -> None:
        """Rules with `log` tell their packets, allowed and denied; others tell none."""
        await driver.apply(ruleset(GUARDED, FRIENDS, BAD))
        await wire.passes(sent.tcp(BOB, 23), expected=True)
        await wire.passes(sent.tcp(BOB, 24), expected=True)
        await wire.passes(sent.tcp(BOB, 25), expected=False)
        told = await _logged(driver, 2)
        assert [(e.action, e.destination_port) for e in told] == [
            (Action.ALLOW, 24),
            (Action.DENY, 25),
        ]
        assert {(e.port, e.group, e.source, e.protocol, e.direction) for e in told} == {
            (ResourceId(f"port-{ALICE}"), GUARDED.id, V4[BOB], "tcp", Direction.IN)
        }
        assert await driver.logged() == ()

    async def test_connections_under_way_are_told(
        self, driver: FirewallBackend, wire: Wire, sent: Sent
    ) -> None:
        """At both ends where both are ports here; as they were opened."""
        if not isinstance(driver, Tracking):
            pytest.skip("this backend does not tell connections")
        await driver.apply(ruleset(GUARDED, FRIENDS, BAD))
        await wire.passes(sent.tcp(BOB, 24), expected=True)
        await wire.passes(sent.tcp(GATE, 24, "10.8.0.1"), expected=True)
        await wire.passes(sent.tcp(GATE, 24, "fd00:8::1"), expected=True)
        told = {(c.at, c.direction, c.remote, c.port) for c in await driver.connections()}
        alice, bob = (ResourceId(f"port-{device}") for device in (ALICE, BOB))
        assert told == {
            (alice, Direction.IN, V4[BOB], 24),
            (bob, Direction.OUT, V4[ALICE], 24),
            (alice, Direction.IN, "10.8.0.1", 24),
            (alice, Direction.IN, "fd00:8::1", 24),
        }

    async def test_back_and_forth_restores(
        self, driver: FirewallBackend, wire: Wire, sent: Sent
    ) -> None:
        """A change and its reverse leave what was there."""
        first = ruleset(GUARDED, FRIENDS, BAD)
        await driver.apply(first)
        before = await driver.state()
        many = group("guarded", *_many(random.Random(1), 300), generation=2)
        await driver.apply(ruleset(many, *_meant(many)))
        await driver.apply(first)
        assert await driver.state() == before
        assert await wire.passes(sent.tcp(BOB, 24), expected=True)

    @pytest.mark.parametrize("count", [12, 200, 500])
    async def test_random_rules_decide_as_they_mean(
        self, driver: FirewallBackend, wire: Wire, count: int
    ) -> None:
        """Whatever the rules, each packet gets the verdict that reading them gives."""
        chance = random.Random(count)
        rules = _many(chance, count)
        pinged: set[str] = set()
        for generation in range(1, 6):
            some = group("guarded", *rules, generation=generation)
            lists = _meant(some)
            await driver.apply(ruleset(some, *lists))
            packets = [_random_packet(chance, generation * 100 + n, pinged) for n in range(60)]
            expected = [_decided(some, lists, p) for p in packets]
            found = await wire.verdicts(packets, expected)
            wrong = [p for p, e, f in zip(packets, expected, found, strict=True) if e is not f]
            assert wrong == []
            # A few go, a few come: the next ruleset differs by little.
            rules = [r for r in rules if chance.random() > 0.02] + _many(chance, 3)


async def _hits(driver: FirewallBackend, of: GroupRules) -> list[int]:
    counted = {h.rule: h.packets for h in await driver.hits()}
    return [counted.get(NamedRule(of.id, of.project, of.name, r).key, 0) for r in of.rules]


async def _logged(driver: FirewallBackend, count: int) -> list[LogEntry]:
    told: list[LogEntry] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(told) < count:
            told += await driver.logged()
            await asyncio.sleep(0.01)
    return told


_LISTS = (
    AddressList(project="acme", name="set:some", addresses=("10.1.0.0/28", "10.2.0.8/29")),
    AddressList(project="acme", name="group:friends", addresses=("10.1.0.3", "10.2.0.4")),
)


def _meant(of: GroupRules) -> tuple[AddressList, ...]:
    named = {rule.named for rule in of.rules}
    return tuple(found for found in _LISTS if found.name in named)


def _many(chance: random.Random, count: int) -> list[Rule]:
    return [_random_rule(chance) for _ in range(count)]


def _random_rule(chance: random.Random) -> Rule:
    protocol = chance.choice(list(Proto))
    with_ports = protocol in (Proto.TCP, Proto.UDP) and chance.random() < 0.8
    first = chance.randint(1, 60)
    ports = (str(first), f"{first + 3}-{first + chance.randint(3, 9)}") if with_ports else ()
    length = chance.choice((28, 29, 30, 31, 32, 32, 32))
    number = chance.randint(0, 31) >> (32 - length) << (32 - length)
    where = f"10.{chance.randint(1, 2)}.0.{number}/{length}"
    if chance.random() < 0.1:
        where = chance.choice(_LISTS).name
    everywhere = with_ports and chance.random() < 0.05
    return Rule(
        protocol=protocol,
        ports=ports[: chance.randint(1, 2)],
        remote=None if everywhere else where,
        action=chance.choice(list(Action)),
        priority=chance.choice((10, 20, 30)),
    )


def _random_packet(chance: random.Random, number: int, pinged: set[str]) -> Packet:
    shape = chance.choice((Shape.TCP, Shape.UDP, Shape.PING))
    source = f"10.{chance.randint(1, 2)}.0.{chance.randint(0, 31)}"
    if shape is Shape.PING and source in pinged:
        # Echo requests have no ports: a second one would be part of the first's connection.
        shape = Shape.UDP
    if shape is Shape.PING:
        pinged.add(source)
    made = packet(GATE, ALICE, shape, 0 if shape is Shape.PING else chance.randint(1, 70))
    return replace(made, src=source, sport=30000 + number)


def _decided(of: GroupRules, lists: Sequence[AddressList], sent: Packet) -> bool:
    protocols = {Shape.TCP: Proto.TCP, Shape.UDP: Proto.UDP, Shape.PING: Proto.ICMP}
    opening = Opening(Direction.IN, protocols[sent.shape], sent.src, sent.dport)
    rules = in_order(NamedRule(of.id, of.project, of.name, rule) for rule in of.rules)
    meant = {(found.project, found.name): found.addresses for found in lists}
    return decide(rules, opening, meant).action is Action.ALLOW
