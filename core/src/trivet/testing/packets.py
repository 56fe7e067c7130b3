"""Packets as values, and as the bytes that a guest would send.

A `Packet` says what a test means ("an ARP reply that claims 10.0.0.9"); a fake judges the value,
and a real bridge is given `encode`'s bytes, with right checksums, since connection tracking
looks at them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv6Address, ip_address

BROADCAST = "ff:ff:ff:ff:ff:ff"


class Shape(StrEnum):
    """What a packet is."""

    TCP = "tcp"
    UDP = "udp"
    PING = "ping"
    PONG = "pong"
    ARP = "arp"
    NEIGHBOR_SOLICIT = "neighbor-solicit"
    NEIGHBOR_ADVERT = "neighbor-advert"
    ROUTER_SOLICIT = "router-solicit"
    ROUTER_ADVERT = "router-advert"
    REDIRECT = "redirect"
    OTHER = "other"


ICMP6_TYPES = {
    Shape.PING: 128,
    Shape.PONG: 129,
    Shape.ROUTER_SOLICIT: 133,
    Shape.ROUTER_ADVERT: 134,
    Shape.NEIGHBOR_SOLICIT: 135,
    Shape.NEIGHBOR_ADVERT: 136,
    Shape.REDIRECT: 137,
}
DISCOVERY = frozenset(
    {
        Shape.NEIGHBOR_SOLICIT,
        Shape.NEIGHBOR_ADVERT,
        Shape.ROUTER_SOLICIT,
        Shape.ROUTER_ADVERT,
        Shape.REDIRECT,
    }
)


class Dress(StrEnum):
    """What an IP packet wears: an extension header (IPv6), or it comes in two fragments, as
    large as links make them, or so that the first is too short to tell much."""

    PLAIN = "plain"
    HOP_BY_HOP = "hop-by-hop"
    DESTINATION = "destination-options"
    FRAGMENTS = "fragments"
    TINY_FRAGMENTS = "tiny-fragments"


FIRST_FRAGMENT_BYTES = {Dress.FRAGMENTS: 1232, Dress.TINY_FRAGMENTS: 8}
FILLING = b"\0" * 1400
FRAGMENT_ID = 4242


@dataclass(frozen=True)
class Packet:
    """One packet on its way from one link of a bridge to another.

    `sender` and `receiver` are devices on the bridge. `src` and `dst` are addresses (ARP: the
    sender's claim and whom it asks for); `target` is what neighbour discovery speaks of;
    `arp_mac` is the MAC inside ARP, where it is not the frame's. `tagged`: with a VLAN tag.
    `dressed`: how what it is is hidden from who looks at first bytes only.
    """

    sender: str
    receiver: str
    shape: Shape
    src_mac: str
    dst_mac: str
    src: str = ""
    dst: str = ""
    sport: int = 40000
    dport: int = 0
    tcp_flags: str = "S"
    target: str = "::"
    arp_mac: str | None = None
    tagged: bool = False
    dressed: Dress = Dress.PLAIN

    @property
    def v6(self) -> bool:
        """Whether it is IPv6."""
        return ":" in self.src

    def reply(self, tcp_flags: str = "SA") -> Packet:
        """The answer to it."""
        shapes = {Shape.PING: Shape.PONG, Shape.PONG: Shape.PING}
        return replace(
            self,
            sender=self.receiver,
            receiver=self.sender,
            shape=shapes.get(self.shape, self.shape),
            src_mac=self.dst_mac,
            dst_mac=self.src_mac,
            src=self.dst,
            dst=self.src,
            sport=self.dport,
            dport=self.sport,
            tcp_flags=tcp_flags,
        )


def encode(packet: Packet, token: bytes) -> tuple[bytes, ...]:
    """The frames, one but for fragments; `token` (4 bytes) is in the last one, so that it is
    known again where it arrives."""
    if packet.dressed is Dress.FRAGMENTS:
        token = FILLING + token
    frame = _encode(packet, token)
    first = FIRST_FRAGMENT_BYTES.get(packet.dressed)
    if first is None:
        return (frame,)
    return (_fragments6 if packet.v6 else _fragments4)(frame, first)


def _fragments4(frame: bytes, first: int) -> tuple[bytes, ...]:
    ether, head, body = frame[:14], frame[14:34], frame[34:]
    parts = (body[:first], 0x2000), (body[first:], first // 8)
    frames = []
    for part, offset in parts:
        made = head[:2] + struct.pack("!HHH", 20 + len(part), FRAGMENT_ID, offset) + head[8:10]
        made += b"\0\0" + head[12:]
        frames.append(ether + made[:10] + struct.pack("!H", _checksum(made)) + made[12:] + part)
    return tuple(frames)


def _fragments6(frame: bytes, first: int) -> tuple[bytes, ...]:
    ether, head, body = frame[:14], frame[14:54], frame[54:]
    frames = []
    for part, offset in ((body[:first], 1), (body[first:], first)):
        extension = struct.pack("!BBHI", head[6], 0, offset, FRAGMENT_ID)
        made = head[:4] + struct.pack("!HB", 8 + len(part), 44) + head[7:]
        frames.append(ether + made + extension + part)
    return tuple(frames)


def _encode(packet: Packet, token: bytes) -> bytes:
    ether = _mac(packet.dst_mac) + _mac(packet.src_mac)
    if packet.tagged:
        ether += struct.pack("!HH", 0x8100, 7)
    if packet.shape is Shape.OTHER:
        return ether + b"\x88\xb5" + token.ljust(46, b"\0")
    if packet.shape is Shape.ARP:
        return ether + b"\x08\x06" + _arp(packet) + token.ljust(18, b"\0")
    if packet.v6:
        return ether + b"\x86\xdd" + _ipv6(packet, token)
    return ether + b"\x08\x00" + _ipv4(packet, token)


def _arp(packet: Packet) -> bytes:
    sender = _mac(packet.arp_mac or packet.src_mac)
    # Asked of everybody it is a request, else an answer.
    operation = 1 if packet.dst_mac == BROADCAST else 2
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return (
        head
        + sender
        + ip_address(packet.src).packed
        + _mac(packet.dst_mac)
        + ip_address(packet.dst).packed
    )


def _ipv4(packet: Packet, token: bytes) -> bytes:
    src, dst = ip_address(packet.src).packed, ip_address(packet.dst).packed
    if packet.shape in (Shape.PING, Shape.PONG):
        number = 1
        body = _icmp(8 if packet.shape is Shape.PING else 0, token, b"")
    else:
        number = 6 if packet.shape is Shape.TCP else 17
        pseudo = src + dst + struct.pack("!BBH", 0, number, _transport_length(packet, token))
        body = _transport(packet, token, pseudo)
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, number, 0) + src + dst
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + body


def _ipv6(packet: Packet, token: bytes) -> bytes:
    src, dst = ip_address(packet.src).packed, ip_address(packet.dst).packed
    if packet.shape in ICMP6_TYPES:
        number, rest = 58, _icmp6_rest(packet, token)
        pseudo = src + dst + struct.pack("!II", 4 + len(rest), number)
        body = _icmp6(ICMP6_TYPES[packet.shape], rest, pseudo)
    else:
        number = 6 if packet.shape is Shape.TCP else 17
        pseudo = src + dst + struct.pack("!II", _transport_length(packet, token), number)
        body = _transport(packet, token, pseudo)
    extension = {Dress.HOP_BY_HOP: 0, Dress.DESTINATION: 60}.get(packet.dressed)
    if extension is not None:
        # Eight bytes, of which six are padding.
        body, number = struct.pack("!BBBB", number, 0, 1, 4) + b"\0" * 4 + body, extension
    return struct.pack("!IHBB", 0x60000000, len(body), number, 255) + src + dst + body


def _transport_length(packet: Packet, token: bytes) -> int:
    return (20 if packet.shape is Shape.TCP else 8) + len(token)


def _transport(packet: Packet, token: bytes, pseudo: bytes) -> bytes:
    if packet.shape is Shape.UDP:
        head = struct.pack("!HHHH", packet.sport, packet.dport, 8 + len(token), 0)
        total = _checksum(pseudo + head + token) or 0xFFFF
        return head[:6] + struct.pack("!H", total) + token
    bits = sum({"F": 1, "S": 2, "R": 4, "P": 8, "A": 16}[flag] for flag in packet.tcp_flags)
    # Sequence numbers that fit one another: a SYN has 1000, what follows it 1001.
    seq = 1000 if "S" in packet.tcp_flags else 1001
    ack = 1001 if "A" in packet.tcp_flags else 0
    head = struct.pack("!HHIIBBHHH", packet.sport, packet.dport, seq, ack, 0x50, bits, 65000, 0, 0)
    total = _checksum(pseudo + head + token)
    return head[:16] + struct.pack("!H", total) + head[18:] + token


def _icmp(type_: int, token: bytes, pseudo: bytes) -> bytes:
    body = struct.pack("!BBHHH", type_, 0, 0, 77, 1) + token
    return body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]


def _icmp6_rest(packet: Packet, token: bytes) -> bytes:
    """What follows an ICMPv6 header's checksum."""
    if packet.shape in (Shape.PING, Shape.PONG):
        return struct.pack("!HH", 77, 1) + token
    if packet.shape is Shape.ROUTER_SOLICIT:
        return b"\0" * 4 + b"\xfd\x01" + token.ljust(6, b"\0")
    if packet.shape is Shape.ROUTER_ADVERT:
        return struct.pack("!BBHII", 64, 0, 1800, 0, 0) + b"\xfd\x01" + token.ljust(6, b"\0")
    target = IPv6Address(packet.target).packed
    middle = target + (target if packet.shape is Shape.REDIRECT else b"")
    return b"\0" * 4 + middle + b"\xfd\x01" + token.ljust(6, b"\0")


def _icmp6(type_: int, rest: bytes, pseudo: bytes) -> bytes:
    total = _checksum(pseudo + bytes([type_, 0, 0, 0]) + rest)
    return bytes([type_, 0]) + struct.pack("!H", total) + rest


def _checksum(data: bytes) -> int:
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))
