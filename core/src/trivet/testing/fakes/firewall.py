"""A firewall that is asked "would this packet pass, and which rule says so?".

It holds the law of `FirewallBackend` in plain Python, with connections, and so is what the real
backends are measured against: one table of packets is put to both. It is stricter than they
are: a ruleset that names a device twice, or a group that nobody stands behind, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import ClassVar

from trivet.contracts.driver import DriverContext, Probe
from trivet.contracts.errors import DRIVER_FAILED, INVALID, REFERENCE, Fatal, Refused
from trivet.contracts.hookspecs import hookimpl
from trivet.contracts.model import Model, ResourceId
from trivet.contracts.security.firewall import (
    Binding,
    FirewallBackend,
    FirewallState,
    PortCounters,
    Ruleset,
)
from trivet.contracts.security.group import Action, Direction, Protocol, Rule
from trivet.testing.packets import DISCOVERY, Packet, Shape


class FakeFirewallConfig(Model):
    """`fail_applies`: so many of the next `apply`s fail, with the old rules in force."""

    fail_applies: int = 0


@dataclass(frozen=True)
class Judgement:
    """Whether a packet passes, and what decided that."""

    passed: bool
    why: str


_Flow = tuple[int, Shape, str, int, str, int]


class FakeFirewall:
    """A firewall in memory."""

    name: ClassVar[str] = "fake-firewall"
    Config: ClassVar[type[Model]] = FakeFirewallConfig

    def __init__(self, context: DriverContext, config: FakeFirewallConfig) -> None:
        self._taps = f"{context.prefix}p"
        self.fail_applies = config.fail_applies
        self.applied = 0
        self._opened = False
        self._closed_table = False
        self._ruleset = Ruleset()
        self._flows: set[_Flow] = set()
        self._counters: dict[ResourceId, PortCounters] = {}

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
        self._closed_table = True
        self._counters = {b.port: PortCounters(port=b.port) for b in ruleset.ports}
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

    async def clear(self) -> None:
        """Forget all rules; the law then holds no more."""
        self._ruleset, self._closed_table, self._counters = Ruleset(), False, {}

    def lose_rules(self) -> None:
        """What somebody's `nft flush ruleset` does: no rules, and nothing stands closed."""
        self._ruleset, self._closed_table, self._counters = Ruleset(), False, {}

    def judge(self, packet: Packet) -> Judgement:
        """Whether the packet passes now; one that passes becomes part of a connection."""
        if not self._closed_table:
            return Judgement(True, "there is no table")
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
        reason = _spoofed(packet, binding)
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
        named = [
            (rule, group.name)
            for group in self._ruleset.groups
            if group.project == binding.project and group.name in binding.security_groups
            for rule in group.rules
        ]
        named.sort(key=lambda pair: (pair[0].priority, pair[0].action is Action.ALLOW))
        for rule, name in named:
            if _matches(rule, packet, direction):
                return Judgement(rule.action is Action.ALLOW, f"group {name}: {rule}")
        return Judgement(direction is Direction.OUT, "the default")

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


def _spoofed(packet: Packet, binding: Binding) -> str | None:
    """Why the packet can't be that guest's own, or None."""
    own = {*binding.addresses, _link_local(binding.mac)}
    asks_dhcp = packet.shape is Shape.UDP and (packet.sport, packet.dport) == (68, 67)
    checks = (
        (packet.src_mac != binding.mac, "another's MAC"),
        (packet.tagged or packet.shape is Shape.OTHER, "neither ARP nor IP"),
        (packet.shape is Shape.ARP and _arp_lies(packet, binding), "another's ARP sender"),
        (packet.shape in (Shape.ROUTER_ADVERT, Shape.REDIRECT), "not a router"),
        (packet.shape is Shape.UDP and packet.dport in (68, 546), "not a DHCP server"),
        (
            packet.shape is Shape.NEIGHBOR_ADVERT and packet.target not in own,
            "speaks for another neighbour",
        ),
    )
    found = next((reason for wrong, reason in checks if wrong), None)
    if found or packet.shape is Shape.ARP or packet.src in own:
        return found
    if packet.src == "0.0.0.0" and asks_dhcp:
        return None
    if packet.src == "::" and packet.shape is Shape.NEIGHBOR_SOLICIT and packet.target in own:
        return None
    if packet.src == "::" and packet.shape is Shape.ROUTER_SOLICIT:
        return None
    return "another's address"


def _arp_lies(packet: Packet, binding: Binding) -> bool:
    claimed = packet.arp_mac or packet.src_mac
    return claimed != binding.mac or packet.src not in {*binding.addresses, "0.0.0.0"}


def _asks_dhcp(packet: Packet, binding: Binding) -> bool:
    servers = {"255.255.255.255", *binding.gateways}
    ports = (packet.sport, packet.dport) == (68, 67)
    return packet.shape is Shape.UDP and ports and packet.dst in servers


def _matches(rule: Rule, packet: Packet, direction: Direction) -> bool:
    if rule.direction is not direction:
        return False
    if rule.remote is not None:
        other = ip_address(packet.src if direction is Direction.IN else packet.dst)
        if other not in ip_network(rule.remote):
            return False
    if rule.protocol is Protocol.ANY:
        return True
    if rule.protocol is Protocol.ICMP:
        return packet.shape in (Shape.PING, Shape.PONG)
    if rule.protocol.value != packet.shape.value:
        return False
    return not rule.ports or any(_within(p, packet.dport) for p in rule.ports)


def _within(ports: str, port: int) -> bool:
    first, _, last = ports.partition("-")
    return int(first) <= port <= int(last or first)


def _flow(vni: int, packet: Packet) -> _Flow:
    if packet.shape in (Shape.PING, Shape.PONG):
        return vni, packet.shape, packet.src, 0, packet.dst, 0
    return vni, packet.shape, packet.src, packet.sport, packet.dst, packet.dport


def _link_local(mac: str) -> str:
    octets = [int(part, 16) for part in mac.split(":")]
    eui = [octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]]
    return str(IPv6Address(bytes([0xFE, 0x80, 0, 0, 0, 0, 0, 0, *eui])))


@hookimpl
def trivet_firewall_backends() -> list[type[FirewallBackend]]:
    """The fake firewall."""
    return [FakeFirewall]
