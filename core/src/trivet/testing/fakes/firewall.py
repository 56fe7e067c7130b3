"""A firewall that is asked "would this packet pass, and which rule says so?".

It holds the law of `FirewallBackend` in plain Python, with connections, and so is what the real
backends are measured against: one table of packets is put to both. It is stricter than they
are: a ruleset that names a device twice, or a group that nobody stands behind, is refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import DRIVER_FAILED, INVALID, REFERENCE, Fatal, Refused
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.security.evaluate import Lists, NamedRule, Opening, decide, in_order
from trivet.contracts.security.firewall import (
    Binding,
    Connection,
    FirewallBackend,
    FirewallState,
    LogEntry,
    PortCounters,
    RuleHits,
    Ruleset,
    link_local,
)
from trivet.contracts.security.group import Action, Direction, Protocol
from trivet.testing.packets import DISCOVERY, Packet, Shape


class FakeFirewallConfig(Model):
    """`fail_applies`: so many of the next `apply`s fail, with the old rules in force."""

    fail_applies: int = 0


@dataclass(frozen=True)
class Judgement:
    """Whether a packet passes, and what decided that."""

    passed: bool
    why: str


LOG_MAX = 5000
PACKET_BYTES = 60
LINK_LOCAL = "fe80:"
_PROTOCOLS = {Shape.TCP: Protocol.TCP, Shape.UDP: Protocol.UDP}

_Flow = tuple[int, Shape, str, int, str, int]


class FakeFirewall:
    """A firewall in memory."""

    name: ClassVar[str] = "fake-firewall"
    Config: ClassVar[type[Model]] = FakeFirewallConfig

    def __init__(self, context: DriverContext, config: FakeFirewallConfig) -> None:
        self._taps = f"{context.prefix}p"
        self._tunnels = f"{context.prefix}vx"
        self.fail_applies = config.fail_applies
        self.applied = 0
        self._opened = False
        self._closed_table = False
        self._ruleset = Ruleset()
        self._flows: set[_Flow] = set()
        self._counters: dict[ResourceId, PortCounters] = {}
        self._hits: dict[str, RuleHits] = {}
        self._logged: deque[LogEntry] = deque(maxlen=LOG_MAX)
        self._disturbed = asyncio.Event()
        self._node = context.node

    @classmethod
    async def probe(cls) -> Probe:
        """Works anywhere, protects nothing."""
        return Probe(usable=True, reason="a fake for tests", score=-1)

    async def open(self) -> None:
        """Stand closed."""
        self._opened = True
        self._closed_table = True

    async def close(self) -> None:
        """Nothing to let go of."""

    async def apply(self, ruleset: Ruleset) -> None:
        """Put the whole ruleset in force, or nothing of it."""
        assert self._opened, "apply before open"
        if self.fail_applies > 0:
            self.fail_applies -= 1
            raise Fatal(DRIVER_FAILED, "the fake was told to fail")
        _check(ruleset)
        self._ruleset = ruleset
        self._disturbed.clear()
        kept = {named.key for named in self._rules()}
        self._hits = {key: hits for key, hits in self._hits.items() if key in kept}
        self._closed_table = True
        self._counters = {
            b.port: self._counters.get(b.port, PortCounters(port=b.port)) for b in ruleset.ports
        }
        self.applied += 1

    async def state(self) -> FirewallState:
        """What is in force."""
        return FirewallState(
            ports={b.port: b.generation for b in self._ruleset.ports},
            groups={g.id: g.generation for g in self._ruleset.groups},
            mode="fake",
        )

    async def counters(self) -> tuple[PortCounters, ...]:
        """What was judged at each port."""
        return tuple(self._counters[port] for port in sorted(self._counters))

    async def hits(self) -> tuple[RuleHits, ...]:
        """How often each rule decided."""
        return tuple(self._hits[key] for key in sorted(self._hits))

    async def logged(self) -> tuple[LogEntry, ...]:
        """What rules with `log` told since the last call."""
        told = tuple(self._logged)
        self._logged.clear()
        return told

    async def connections(self) -> tuple[Connection, ...]:
        """What `judge` has let through, once at each of the ports on its way."""
        found = []
        for vni, shape, source, _, target, port in sorted(self._flows):
            protocol = _PROTOCOLS.get(shape, Protocol.ICMP)
            for binding in (b for b in self._ruleset.ports if b.vni == vni):
                if target in binding.addresses:
                    into, other = Direction.IN, source
                elif source in binding.addresses:
                    into, other = Direction.OUT, target
                else:
                    continue
                found.append(
                    Connection(
                        at=binding.port, direction=into, protocol=protocol, remote=other, port=port
                    )
                )
        return tuple(found)

    async def disturbed(self) -> str:
        """Wait for `lose_rules`."""
        await self._disturbed.wait()
        return "nft (process 1)"

    async def clear(self) -> None:
        """Forget all rules; the law then holds no more."""
        self._ruleset, self._closed_table, self._counters = Ruleset(), False, {}

    def lose_rules(self) -> None:
        """What somebody's `nft flush ruleset` does: no rules, and nothing stands closed."""
        self._ruleset, self._closed_table, self._counters = Ruleset(), False, {}
        self._disturbed.set()

    def judge(self, packet: Packet) -> Judgement:
        """Whether the packet passes now; one that passes becomes part of a connection."""
        if not self._closed_table:
            return Judgement(True, "there is no table")
        if packet.receiver.startswith(self._tunnels) and _of_the_node(packet):
            return Judgement(False, "between a guest and its gateway: it stays on the node")
        sender, receiver = self._binding(packet.sender), self._binding(packet.receiver)
        for device, binding in ((packet.sender, sender), (packet.receiver, receiver)):
            if device.startswith(self._taps) and binding is None:
                return Judgement(False, f"nobody protects {device}")
        verdict = Judgement(True, "no guest's port is on its way")
        if sender is not None:
            verdict = self._leaving(packet, sender)
        if verdict.passed and receiver is not None:
            verdict = self._arriving(packet, receiver)
        vni = (sender or receiver).vni if sender or receiver else 0  # type: ignore[union-attr]
        if verdict.passed and packet.shape not in DISCOVERY:
            self._flows.add(_flow(vni, packet))
        return verdict

    def _binding(self, device: str) -> Binding | None:
        return next((b for b in self._ruleset.ports if b.device == device), None)

    def _leaving(self, packet: Packet, binding: Binding) -> Judgement:
        reason = _spoofed(packet, binding, self._taken(binding))
        if reason:
            return self._count(binding, "spoofed_packets", Judgement(False, reason))
        if packet.shape is Shape.ARP or packet.shape in DISCOVERY or _asks_dhcp(packet, binding):
            return Judgement(True, "what no group can forbid")
        verdict = self._by_groups(packet, binding, Direction.OUT)
        return self._count(
            binding, "allowed_out_packets" if verdict.passed else "denied_out_packets", verdict
        )

    def _arriving(self, packet: Packet, binding: Binding) -> Judgement:
        first = int(packet.dst_mac[:2], 16)
        if not first & 1 and packet.dst_mac != binding.mac:
            return Judgement(False, "meant for another")
        if packet.tagged or packet.shape is Shape.OTHER:
            return Judgement(False, "neither ARP nor IP")
        if packet.shape is Shape.ARP or packet.shape in DISCOVERY - {Shape.REDIRECT}:
            return Judgement(True, "what no group can forbid")
        if packet.shape is Shape.UDP and packet.dport == 68 and packet.src in binding.gateways:
            return Judgement(True, "a DHCP answer of the gateway")
        verdict = self._by_groups(packet, binding, Direction.IN)
        return self._count(
            binding, "allowed_in_packets" if verdict.passed else "denied_in_packets", verdict
        )

    def _by_groups(self, packet: Packet, binding: Binding, direction: Direction) -> Judgement:
        back = _flow(binding.vni, packet.reply())
        if {back, _flow(binding.vni, packet)} & self._flows:
            return Judgement(True, "part of a connection")
        if packet.shape is Shape.PONG or (
            packet.shape is Shape.TCP and "S" not in packet.tcp_flags
        ):
            return Judgement(False, "part of no connection")
        opening = _opening(packet, direction)
        rules = [r for r in self._rules() if r.project == binding.project]
        mine = [r for r in rules if r.name in binding.security_groups]
        decision = decide(in_order(mine), opening, self._lists())
        if decision.by is None:
            return Judgement(decision.action is Action.ALLOW, "the default")
        self._hit(decision.by, packet, binding, direction)
        why = f"group {decision.by.name}: {decision.by.rule}"
        return Judgement(decision.action is Action.ALLOW, why)

    def _rules(self) -> list[NamedRule]:
        return [
            NamedRule(group.id, group.project, group.name, rule)
            for group in self._ruleset.groups
            for rule in group.rules
        ]

    def _lists(self) -> Lists:
        return {(found.project, found.name): found.addresses for found in self._ruleset.lists}

    def _taken(self, binding: Binding) -> set[str]:
        """The IPv6 addresses that are others' or the gateway's on that port's network."""
        others = [b for b in self._ruleset.ports if b.vni == binding.vni]
        return {
            address
            for other in others
            for address in (*other.addresses, *other.gateways, link_local(other.mac))
        } - {*binding.addresses, link_local(binding.mac)}

    def _hit(
        self, named: NamedRule, packet: Packet, binding: Binding, direction: Direction
    ) -> None:
        none = RuleHits(group=named.group, rule=named.key, packets=0, bytes=0)
        old = self._hits.get(named.key, none)
        more = {"packets": old.packets + 1, "bytes": old.bytes + PACKET_BYTES}
        self._hits[named.key] = old.model_copy(update=more)
        if not named.rule.log:
            return
        with_ports = packet.shape in (Shape.TCP, Shape.UDP)
        entry = LogEntry(
            at=datetime.now(UTC),
            node=self._node,
            port=binding.port,
            group=named.group,
            rule=named.key,
            direction=direction,
            action=named.rule.action,
            protocol=_opening(packet, direction).protocol.value,
            source=packet.src,
            destination=packet.dst,
            source_port=packet.sport if with_ports else None,
            destination_port=packet.dport if with_ports else None,
        )
        self._logged.append(entry)

    def _count(self, binding: Binding, field: str, verdict: Judgement) -> Judgement:
        old = self._counters[binding.port]
        self._counters[binding.port] = old.model_copy(update={field: getattr(old, field) + 1})
        return verdict


def _check(ruleset: Ruleset) -> None:
    devices = [b.device for b in ruleset.ports]
    if len(set(devices)) != len(devices):
        raise Refused(INVALID, "a device is named by two ports")
    known = {(g.project, g.name) for g in ruleset.groups}
    named = {(b.project, n) for b in ruleset.ports for n in b.security_groups}
    if named - known:
        raise Refused(REFERENCE, f"a port names groups that are not there: {sorted(named - known)}")
    if known - named:
        raise Refused(INVALID, f"nobody stands behind {sorted(known - named)}")
    listed = {(found.project, found.name) for found in ruleset.lists}
    meant = {(g.project, r.named) for g in ruleset.groups for r in g.rules if r.named is not None}
    if meant - listed:
        raise Refused(REFERENCE, f"rules name lists that are not there: {sorted(meant - listed)}")
    if listed - meant:
        raise Refused(INVALID, f"no rule names the lists {sorted(listed - meant)}")


def _spoofed(packet: Packet, binding: Binding, taken: set[str]) -> str | None:
    """Why the packet can't be that guest's own, or None."""
    own = {*binding.addresses, link_local(binding.mac)}
    asks_dhcp = packet.shape is Shape.UDP and (packet.sport, packet.dport) == (68, 67)

    def may_speak_for(address: str) -> bool:
        chosen = address not in taken and address.startswith(LINK_LOCAL)
        return address in own or chosen

    checks = (
        (packet.src_mac != binding.mac, "another's MAC"),
        (packet.tagged or packet.shape is Shape.OTHER, "neither ARP nor IP"),
        (packet.shape is Shape.ARP and _arp_lies(packet, binding), "another's ARP sender"),
        (packet.shape in (Shape.ROUTER_ADVERT, Shape.REDIRECT), "not a router"),
        (packet.shape is Shape.UDP and packet.dport in (68, 546), "not a DHCP server"),
        (
            packet.shape is Shape.NEIGHBOR_ADVERT and not may_speak_for(packet.target),
            "speaks for another neighbour",
        ),
    )
    found = next((reason for wrong, reason in checks if wrong), None)
    if found or packet.shape is Shape.ARP or may_speak_for(packet.src):
        return found
    if packet.src == "0.0.0.0" and asks_dhcp:
        return None
    if packet.src == "::" and packet.shape is Shape.NEIGHBOR_SOLICIT:
        return None if may_speak_for(packet.target) else "asks whether another's is free"
    if packet.src == "::" and packet.shape is Shape.ROUTER_SOLICIT:
        return None
    return "another's address"


def _arp_lies(packet: Packet, binding: Binding) -> bool:
    claimed = packet.arp_mac or packet.src_mac
    return claimed != binding.mac or packet.src not in {*binding.addresses, "0.0.0.0"}


def _of_the_node(packet: Packet) -> bool:
    if packet.shape is Shape.UDP:
        return packet.dport in (67, 68, 546, 547)
    return packet.shape in (Shape.ROUTER_SOLICIT, Shape.ROUTER_ADVERT)


def _asks_dhcp(packet: Packet, binding: Binding) -> bool:
    servers = {"255.255.255.255", *binding.gateways}
    ports = (packet.sport, packet.dport) == (68, 67)
    return packet.shape is Shape.UDP and ports and packet.dst in servers


def _opening(packet: Packet, direction: Direction) -> Opening:
    remote = packet.src if direction is Direction.IN else packet.dst
    return Opening(direction, _PROTOCOLS.get(packet.shape, Protocol.ICMP), remote, packet.dport)


def _flow(vni: int, packet: Packet) -> _Flow:
    if packet.shape in (Shape.PING, Shape.PONG):
        return vni, packet.shape, packet.src, 0, packet.dst, 0
    return vni, packet.shape, packet.src, packet.sport, packet.dst, packet.dport


@hookimpl
def trivet_firewall_backends() -> list[type[FirewallBackend]]:
    """The fake firewall."""
    return [FakeFirewall]
