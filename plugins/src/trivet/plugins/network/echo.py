"""One echo request (ping), by a raw socket of the thread's own namespace."""

from __future__ import annotations

import secrets
import socket
import struct
import time
from ipaddress import ip_address

REQUEST = {4: 8, 6: 128}
REPLY = {4: 0, 6: 129}
RESEND_S = 0.5


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def answers(address: str, timeout_s: float) -> bool:
    """Whether `address` answers within `timeout_s`; asks again each half second, since the
    first request may be spent on finding the neighbour. Blocks."""
    version = ip_address(address).version
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
    mark = secrets.token_bytes(16)
    ident = secrets.randbelow(65536)
    deadline = time.monotonic() + timeout_s
    with socket.socket(family, socket.SOCK_RAW, protocol) as sock:
        sequence = 0
        while (left := deadline - time.monotonic()) > 0:
            sequence += 1
            if not _send(sock, address, _request(version, ident, sequence, mark)):
                time.sleep(min(left, RESEND_S))
            elif _heard(sock, version, ident, mark, time.monotonic() + min(left, RESEND_S)):
                return True
    return False


def _request(version: int, ident: int, sequence: int, mark: bytes) -> bytes:
    head = struct.pack("!BBHHH", REQUEST[version], 0, 0, ident, sequence)
    # The kernel fills in the checksum of ICMPv6.
    value = checksum(head + mark) if version == 4 else 0
    return struct.pack("!BBHHH", REQUEST[version], 0, value, ident, sequence) + mark


def _send(sock: socket.socket, address: str, packet: bytes) -> bool:
    try:
        sock.sendto(packet, (address, 0))
    except OSError:
        return False
    return True


def _heard(sock: socket.socket, version: int, ident: int, mark: bytes, until: float) -> bool:
    while (left := until - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            packet = sock.recv(2048)
        except OSError:
            return False
        if version == 4:
            packet = packet[(packet[0] & 15) * 4 :]
        if len(packet) >= 8 and packet[0] == REPLY[version] and packet[8:] == mark:
            return int.from_bytes(packet[4:6]) == ident
    return False
