"""The conformance suite of firewall backends: packets, and whether they get there.

A test module subclasses `FirewallSuite` and provides two fixtures: `driver`, opened, with the
prefix `tv` and no rules, and `wire`, which brings a packet onto the bridge `tvbr100` and tells
whether it came out where it should. On that bridge are the taps `tvpalice`, `tvpbob` and
`tvpeve`, which no ruleset ever names, the gateway's link `tvgate`, and `tvvx100`, the tunnel to
other nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import pytest

from trivet.contracts.errors import Refused
from trivet.contracts.model import ResourceId
from trivet.contracts.security.firewall import Binding, FirewallBackend, GroupRules, Ruleset
from trivet.contracts.security.group import Action, Direction, Rule
from trivet.contracts.security.group import Protocol as Proto
from trivet.testing.packets import BROADCAST, Dress, Packet, Shape

ALICE, BOB, EVE, GATE, FAR = "tvpalice", "tvpbob", "tvpeve", "tvgate", "tvvx100"
DEVICES = (ALICE, BOB, EVE, GATE, FAR)
VNI = 100
MACS = {
    ALICE: "52:54:00:00:00:0a",
    BOB: "52:54:00:00:00:0b",
    EVE: "52:54:00:00:00:0e",
    GATE: "52:54:00:00:00:01",
    FAR: "52:54:00:00:00:0f",
}
V4 = {ALICE: "10.0.0.10", BOB: "10.0.0.11", EVE: "10.0.0.14", GATE: "10.0.0.1", FAR: "10.0.0.15"}
V6 = {ALICE: "fd00::a", BOB: "fd00::b", EVE: "fd00::e", GATE: "fd00::1", FAR: "fd00::f"}
LL = {ALICE: "fe80::5054:ff:fe00:a", BOB: "fe80::5054:ff:fe00:b", GATE: "fe80::5054:ff:fe00:1"}


class Wire(Protocol):
    """The bridge with its links."""

    async def passes(self, packet: Packet, *, expected: bool) -> bool:
        """Whether the packet, sent from its sender's end, comes out at its receiver's.
        `expected` tells how patient to be, and nothing else."""
        ...

    async def verdicts(self, packets: Sequence[Packet], expected: Sequence[bool]) -> list[bool]:
        """Likewise for many packets that are sent at once, all to one receiver."""
        ...


def binding(device: str, groups: tuple[str, ...], generation: int = 1) -> Binding:
    """The port of a tap."""
    return Binding(
        port=ResourceId(f"port-{device}"),
        project="acme",
        generation=generation,
        device=device,
        mac=MACS[device],
        addresses=(V4[device], V6[device]),
        vni=VNI,
        gateways=(V4[GATE], V6[GATE], LL[GATE]),
        security_groups=groups,
    )


def group(name: str, *rules: Rule, generation: int = 1) -> GroupRules:
    """A group of the project that all ports are of."""
    id_ = ResourceId(f"security-group-{name}")
    return GroupRules(id=id_, project="acme", name=name, generation=generation, rules=rules)


WEB = group(
    "web",
    Rule(protocol=Proto.TCP, ports=("22", "8000-8080")),
    Rule(protocol=Proto.TCP, ports=("80",), remote="10.0.0.0/24"),
    Rule(protocol=Proto.TCP, ports=("443",), remote="fd00::/64"),
    Rule(protocol=Proto.ICMP),
    Rule(protocol=Proto.TCP, ports=("8001",), action=Action.DENY),
    Rule(protocol=Proto.TCP, ports=("8002",), action=Action.DENY, priority=2000),
)
STRICT = group(
    "strict",
    Rule(direction=Direction.OUT, remote="10.9.0.0/16", action=Action.DENY),
    Rule(direction=Direction.OUT, protocol=Proto.UDP, ports=("5000-6000",), action=Action.DENY),
    Rule(protocol=Proto.TCP, ports=("8003",), action=Action.DENY, priority=10),
)
RULES = Ruleset(ports=(binding(ALICE, ("web",)), binding(BOB, ("strict",))), groups=(WEB, STRICT))


def packet(sender: str, receiver: str, shape: Shape, dport: int = 0, *, v6: bool = False) -> Packet:
    """An honest packet from one link to another."""
    addresses = V6 if v6 else V4
    return Packet(
        sender,
        receiver,
        shape,
        MACS[sender],
        MACS[receiver],
        addresses[sender],
        addresses[receiver],
        dport=dport,
        target=V6[sender],
    )


def _tcp(sender: str, receiver: str, port: int, *, v6: bool = False) -> Packet:
    return packet(sender, receiver, Shape.TCP, port, v6=v6)


def _nd(sender: str, receiver: str, shape: Shape, **changes: str) -> Packet:
    return replace(packet(sender, receiver, shape, v6=True), **changes)  # type: ignore[arg-type]


_ASK_DHCP = replace(
    packet(BOB, GATE, Shape.UDP, 67), src="0.0.0.0", dst="255.255.255.255", sport=68
)
_DHCP_ANSWER = replace(packet(GATE, BOB, Shape.UDP, 68), sport=67)
_ARP = packet(BOB, ALICE, Shape.ARP)
HELLO = _tcp(BOB, ALICE, 22)
CHOSEN = "fe80::1234:5678:9abc:def0"
ALL_NODES = "33:33:00:00:00:01"
_AS_ROUTER = _nd(BOB, ALICE, Shape.ROUTER_ADVERT, src=LL[BOB])
_FOR_GATE = _nd(BOB, ALICE, Shape.NEIGHBOR_ADVERT, target=V6[GATE])


def _dressed(plain: Packet, dress: Dress) -> Packet:
    return replace(plain, dressed=dress)


CASES: tuple[tuple[str, Packet, bool], ...] = (
    ("tcp to an allowed port", HELLO, True),
    ("tcp to an allowed range", _tcp(BOB, ALICE, 8080), True),
    ("tcp to a port of no rule", _tcp(BOB, ALICE, 23), False),
    ("tcp from an allowed network", _tcp(BOB, ALICE, 80), True),
    ("tcp from another network", replace(_tcp(GATE, ALICE, 80), src="10.7.0.1"), False),
    ("tcp over v6 from an allowed network", _tcp(BOB, ALICE, 443, v6=True), True),
    ("tcp over v4, allowed for v6 only", _tcp(BOB, ALICE, 443), False),
    ("deny goes first among equals", _tcp(BOB, ALICE, 8001), False),
    ("a later deny loses", _tcp(BOB, ALICE, 8002), True),
    ("udp where tcp is allowed", packet(BOB, ALICE, Shape.UDP, 22), False),
    ("ping where icmp is allowed", packet(BOB, ALICE, Shape.PING), True),
    ("ping6 where icmp is allowed", packet(BOB, ALICE, Shape.PING, v6=True), True),
    ("ping from the gateway, allowed", packet(GATE, ALICE, Shape.PING), True),
    ("ping from the gateway, not allowed", packet(GATE, BOB, Shape.PING), False),
    ("tcp inwards by default", _tcp(ALICE, BOB, 22), False),
    ("tcp outwards by default", _tcp(BOB, GATE, 53), True),
    ("outwards to a denied network", replace(_tcp(BOB, GATE, 80), dst="10.9.1.1"), False),
    ("udp outwards to denied ports", packet(BOB, GATE, Shape.UDP, 5353), False),
    ("udp outwards to others", packet(BOB, GATE, Shape.UDP, 53), True),
    ("an answer to nothing", replace(_tcp(BOB, ALICE, 22), tcp_flags="SA", dport=9), False),
    ("an unknown tap as sender", _tcp(EVE, ALICE, 22), False),
    ("an unknown tap as receiver", _tcp(ALICE, EVE, 22), False),
    ("arp of an unknown tap", packet(EVE, ALICE, Shape.ARP), False),
    ("arp to an unknown tap", packet(GATE, EVE, Shape.ARP), False),
    ("another's MAC", replace(HELLO, src_mac=MACS[EVE]), False),
    ("another's address", replace(HELLO, src=V4[EVE]), False),
    ("another's address over v6", replace(_tcp(BOB, ALICE, 443, v6=True), src=V6[EVE]), False),
    ("the gateway's address", replace(HELLO, src=V4[GATE]), False),
    ("a VLAN tag", replace(HELLO, tagged=True), False),
    ("a frame that is neither ARP nor IP", replace(HELLO, shape=Shape.OTHER), False),
    ("meant for another's MAC", replace(HELLO, sender=GATE, dst_mac=MACS[EVE]), False),
    ("arp", _ARP, True),
    ("arp probe", replace(_ARP, src="0.0.0.0", dst_mac=BROADCAST), True),
    ("arp of the gateway", packet(GATE, BOB, Shape.ARP), True),
    ("arp that claims the gateway", replace(_ARP, src=V4[GATE]), False),
    ("arp with another's MAC inside", replace(_ARP, arp_mac=MACS[EVE]), False),
    ("asking for an address", replace(_ASK_DHCP, dst_mac=BROADCAST), True),
    ("the gateway's DHCP answer", _DHCP_ANSWER, True),
    ("a guest's DHCP answer", replace(packet(BOB, ALICE, Shape.UDP, 68), sport=67), False),
    ("another's DHCP answer", replace(_DHCP_ANSWER, src="10.0.0.99"), False),
    ("neighbour solicitation", _nd(BOB, ALICE, Shape.NEIGHBOR_SOLICIT), True),
    ("from the link-local address", _nd(BOB, ALICE, Shape.NEIGHBOR_SOLICIT, src=LL[BOB]), True),
    ("duplicate detection", _nd(BOB, ALICE, Shape.NEIGHBOR_SOLICIT, src="::"), True),
    (
        "duplicate detection of another's",
        _nd(BOB, ALICE, Shape.NEIGHBOR_SOLICIT, src="::", target=V6[ALICE]),
        False,
    ),
    ("another's link-local", _nd(BOB, ALICE, Shape.NEIGHBOR_SOLICIT, src=LL[ALICE]), False),
    (
        "a link-local address of its own choice",
        _nd(BOB, ALICE, Shape.NEIGHBOR_SOLICIT, src=CHOSEN),
        True,
    ),
    (
        "that one with another's MAC",
        _nd(BOB, ALICE, Shape.NEIGHBOR_SOLICIT, src=CHOSEN, src_mac=MACS[EVE]),
        False,
    ),
    (
        "duplicate detection of its choice",
        _nd(BOB, ALICE, Shape.NEIGHBOR_SOLICIT, src="::", target=CHOSEN),
        True,
    ),
    (
        "advertisement of its choice",
        _nd(BOB, ALICE, Shape.NEIGHBOR_ADVERT, src=CHOSEN, target=CHOSEN),
        True,
    ),
    (
        "the gateway's link-local",
        _nd(BOB, ALICE, Shape.NEIGHBOR_SOLICIT, src=LL[GATE]),
        False,
    ),
    (
        "for the gateway's link-local",
        _nd(BOB, ALICE, Shape.NEIGHBOR_ADVERT, target=LL[GATE]),
        False,
    ),
    ("for another's link-local", _nd(BOB, ALICE, Shape.NEIGHBOR_ADVERT, target=LL[ALICE]), False),
    (
        "duplicate detection of the gateway's",
        _nd(BOB, ALICE, Shape.NEIGHBOR_SOLICIT, src="::", target=LL[GATE]),
        False,
    ),
    ("neighbour advertisement", _nd(BOB, ALICE, Shape.NEIGHBOR_ADVERT), True),
    ("for another", _nd(BOB, ALICE, Shape.NEIGHBOR_ADVERT, target=V6[GATE]), False),
    ("the gateway's advertisement", _nd(GATE, BOB, Shape.NEIGHBOR_ADVERT), True),
    ("router solicitation", _nd(BOB, GATE, Shape.ROUTER_SOLICIT, src=LL[BOB]), True),
    ("the gateway's router advertisement", _nd(GATE, BOB, Shape.ROUTER_ADVERT, src=LL[GATE]), True),
    ("a guest as router", _nd(BOB, ALICE, Shape.ROUTER_ADVERT, src=LL[BOB]), False),
    ("a guest's redirect", _nd(BOB, ALICE, Shape.REDIRECT, src=LL[BOB]), False),
    (
        "gratuitous arp for the gateway, to all",
        replace(_ARP, src=V4[GATE], dst=V4[GATE], dst_mac=BROADCAST),
        False,
    ),
    (
        "gratuitous advertisement for the gateway, to all",
        _nd(BOB, ALICE, Shape.NEIGHBOR_ADVERT, dst="ff02::1", dst_mac=ALL_NODES, target=V6[GATE]),
        False,
    ),
    ("to a guest elsewhere", _tcp(BOB, FAR, 22), True),
    ("to a denied port elsewhere", packet(BOB, FAR, Shape.UDP, 5353), False),
    ("from a guest elsewhere", _tcp(FAR, ALICE, 22), True),
    ("from a guest elsewhere to a port of no rule", _tcp(FAR, ALICE, 23), False),
    ("arp that goes elsewhere", packet(BOB, FAR, Shape.ARP), True),
    ("neighbour solicitation elsewhere", _nd(BOB, FAR, Shape.NEIGHBOR_SOLICIT), True),
    ("asking for an address elsewhere", replace(_ASK_DHCP, receiver=FAR, dst_mac=BROADCAST), False),
    (
        "asking for a v6 address elsewhere",
        replace(packet(BOB, FAR, Shape.UDP, 547, v6=True), sport=546, dst="ff02::1:2"),
        False,
    ),
    ("the gateway's DHCP answer elsewhere", replace(_DHCP_ANSWER, receiver=FAR), False),
    ("router solicitation elsewhere", _nd(BOB, FAR, Shape.ROUTER_SOLICIT, src=LL[BOB]), False),
    (
        "the gateway's router advertisement elsewhere",
        _nd(GATE, FAR, Shape.ROUTER_ADVERT, src=LL[GATE]),
        False,
    ),
    ("a DHCPv6 server", replace(packet(BOB, ALICE, Shape.UDP, 546, v6=True), sport=547), False),
    ("in fragments, allowed", replace(HELLO, dressed=Dress.FRAGMENTS), True),
    ("in fragments, to a port of no rule", _dressed(_tcp(BOB, ALICE, 23), Dress.FRAGMENTS), False),
    (
        "in tiny fragments, to a port of no rule",
        _dressed(_tcp(BOB, ALICE, 23), Dress.TINY_FRAGMENTS),
        False,
    ),
    ("v6 in fragments, allowed", _dressed(_tcp(BOB, ALICE, 22, v6=True), Dress.FRAGMENTS), True),
    (
        "v6 in fragments, to a port of no rule",
        _dressed(_tcp(BOB, ALICE, 23, v6=True), Dress.FRAGMENTS),
        False,
    ),
    (
        "behind destination options, allowed",
        _dressed(_tcp(BOB, ALICE, 22, v6=True), Dress.DESTINATION),
        True,
    ),
    (
        "behind destination options, to a port of no rule",
        _dressed(_tcp(BOB, ALICE, 23, v6=True), Dress.DESTINATION),
        False,
    ),
    *(
        (f"a guest as router, {dress}", _dressed(_AS_ROUTER, dress), False)
        for dress in (Dress.HOP_BY_HOP, Dress.DESTINATION, Dress.TINY_FRAGMENTS)
    ),
    *(
        (f"speaking for the gateway, {dress}", _dressed(_FOR_GATE, dress), False)
        for dress in (Dress.HOP_BY_HOP, Dress.DESTINATION, Dress.TINY_FRAGMENTS)
    ),
)


class FirewallSuite:
    """What every firewall backend must hold."""

    @pytest.mark.parametrize(("case", "sent", "passes"), CASES, ids=[c[0] for c in CASES])
    async def test_packet(
        self, driver: FirewallBackend, wire: Wire, case: str, sent: Packet, passes: bool
    ) -> None:
        """Each packet of the table gets where it may, and nowhere else."""
        await driver.apply(RULES)
        assert await wire.passes(sent, expected=passes) is passes, case

    async def test_closed_before_the_first_rule(self, driver: FirewallBackend, wire: Wire) -> None:
        """An opened backend lets no guest's packet through."""
        assert not await wire.passes(_ARP, expected=False)
        assert not await wire.passes(HELLO, expected=False)
        assert not await wire.passes(packet(GATE, ALICE, Shape.ARP), expected=False)

    async def test_answers_pass_though_no_rule_names_them(
        self, driver: FirewallBackend, wire: Wire
    ) -> None:
        """Bob, to whom nothing is allowed, gets the answers to what he asked."""
        await driver.apply(RULES)
        for asked in (HELLO, packet(BOB, ALICE, Shape.PING), _tcp(BOB, GATE, 80, v6=True)):
            assert not await wire.passes(asked.reply(), expected=False)
            assert await wire.passes(asked, expected=True)
            assert await wire.passes(asked.reply(), expected=True)

    async def test_a_connection_survives_new_rules(
        self, driver: FirewallBackend, wire: Wire
    ) -> None:
        """A replacement that still allows a connection does not cut it."""
        await driver.apply(RULES)
        assert await wire.passes(HELLO, expected=True)
        assert await wire.passes(HELLO.reply(), expected=True)
        assert await wire.passes(replace(HELLO, tcp_flags="A"), expected=True)
        more = group("web", *WEB.rules, Rule(protocol=Proto.UDP), generation=2)
        ports = (binding(BOB, ("strict",), 2), binding(ALICE, ("web",), 2))
        await driver.apply(Ruleset(ports=ports, groups=(STRICT, more)))
        assert await wire.passes(replace(HELLO, tcp_flags="PA"), expected=True)
        assert await wire.passes(HELLO.reply("PA"), expected=True)

    async def test_groups_are_tried_as_one_list(self, driver: FirewallBackend, wire: Wire) -> None:
        """A group's deny of a lower priority number beats another group's allow."""
        both = binding(ALICE, ("web", "strict"))
        rules = Ruleset(ports=(both, binding(BOB, ("web",))), groups=(WEB, STRICT))
        await driver.apply(rules)
        assert not await wire.passes(_tcp(BOB, ALICE, 8003), expected=False)
        assert await wire.passes(_tcp(BOB, ALICE, 8004), expected=True)
        assert await wire.passes(_tcp(ALICE, BOB, 8003), expected=True)

    async def test_a_port_that_is_named_no_more_passes_nothing(
        self, driver: FirewallBackend, wire: Wire
    ) -> None:
        """Leaving a port out of the ruleset closes it, its connections too."""
        await driver.apply(RULES)
        assert await wire.passes(HELLO, expected=True)
        await driver.apply(Ruleset(ports=(RULES.ports[1],), groups=(STRICT,)))
        assert not await wire.passes(replace(HELLO, tcp_flags="A"), expected=False)
        assert not await wire.passes(_ARP, expected=False)

    async def test_state_tells_what_is_in_force(self, driver: FirewallBackend) -> None:
        """Generations of ports and groups are read back; applying again changes nothing."""
        await driver.apply(RULES)
        first = await driver.state()
        assert first.ports == {b.port: 1 for b in RULES.ports}
        assert first.groups == {g.id: 1 for g in RULES.groups}
        await driver.apply(RULES)
        assert await driver.state() == first
        newer = Ruleset(ports=(binding(ALICE, ("web",), 7),), groups=(WEB,))
        await driver.apply(newer)
        assert (await driver.state()).ports == {newer.ports[0].port: 7}
        await driver.apply(RULES)
        assert await driver.state() == first

    async def test_a_refused_ruleset_changes_nothing(
        self, driver: FirewallBackend, wire: Wire
    ) -> None:
        """After a failed `apply` the old rules are in force."""
        await driver.apply(RULES)
        before = await driver.state()
        with pytest.raises(Refused):
            await driver.apply(Ruleset(ports=(binding(ALICE, ("nowhere",)),)))
        assert await driver.state() == before
        assert await wire.passes(HELLO, expected=True)

    async def test_counters_say_what_was_stopped(self, driver: FirewallBackend, wire: Wire) -> None:
        """What was allowed, denied and spoofed is counted at the port that decided."""
        await driver.apply(RULES)
        await wire.passes(HELLO, expected=True)
        await wire.passes(_tcp(BOB, ALICE, 23), expected=False)
        await wire.passes(replace(HELLO, src=V4[GATE]), expected=False)
        await wire.passes(packet(BOB, GATE, Shape.UDP, 5353), expected=False)
        counted = {c.port: c for c in await driver.counters()}
        alice, bob = counted[RULES.ports[0].port], counted[RULES.ports[1].port]
        assert alice.allowed_in_packets >= 1
        assert alice.denied_in_packets >= 1
        assert bob.spoofed_packets >= 1
        assert bob.denied_out_packets >= 1
        assert bob.allowed_out_packets >= 2

    async def test_clear_leaves_nothing(self, driver: FirewallBackend) -> None:
        """`clear` removes everything, and may be repeated."""
        await driver.apply(RULES)
        await driver.clear()
        await driver.clear()
        state = await driver.state()
        assert not state.ports
        assert not state.groups
